"""What the clients are given: a key to work with, one without credit, one with a request a minute."""

from collections.abc import Collection

from tests.conformance.clients.features import World
from tests.e2e.installation import Installation

PENNILESS = "penniless"


def open_world(installation: Installation, name: str) -> tuple[World, str]:
    """For one client, with keys of its own; and the id of its first key, by which usage is found."""
    make = ("keys", "create", "--workspace", "default", "--org", "default", "--name")
    first, slow = (installation.quick(*make, f"{name}{more}") for more in ("", "-slow"))
    installation.quick("limits", "set", "key", slow["id"], "requests_per_minute", "1")
    if PENNILESS not in [org["name"] for org in installation.quick("orgs", "list")["organisations"]]:
        installation.quick("orgs", "create", PENNILESS, "--plan", PENNILESS)
    poor = installation.quick("keys", "create", "--org", PENNILESS, "--name", name)
    base_url = installation.quick("status")["base_url"]
    return World(base_url, first["key"], poor["key"], slow["key"]), first["id"]


def metered(installation: Installation, key_id: str, silent_tiers: Collection[str] = ()) -> dict[str, int]:
    """Without the tiers whose usage the client does not show."""
    found = installation.quick("usage")["rows"]
    rows = [row for row in found if row["key_id"] == key_id and row["tier"] not in silent_tiers]
    return {name: sum(row[name] for row in rows) for name in ("prompt_tokens", "completion_tokens")}
