"""Every generation of clients against a platform of its own: docs/compatibility.md.

    python -m tests.conformance.run [CLIENT ...]

Without names all of them, and the page is written; with names it is only shown. `make conformance` installs them first.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tests.conformance.clients.features import FEATURES
from tests.conformance.known import DEFECTS
from tests.conformance.suite import Told, python_of, run_client
from tests.conformance.world import metered, open_world
from tests.e2e.installation import ROOT, Installation

CLIENTS = (
    "mistralai-0.4.2",
    "mistralai-1.0.0",
    "mistralai-1.12.4",
    "mistralai-2.4.13",
    "mistralai-3.7.0",
    "openai-3.54.0",
    "langchain-mistralai-1.1.6",
    "litellm-1.106.2",
)
PYTHONS = {"litellm-1.106.2": ROOT / ".venv-litellm" / "bin" / "python"}  # the one that benchmarks measure against
SHOWN = {**FEATURES, "usage": "usage as told is usage as metered"}
PAGE = ROOT / "docs" / "compatibility.md"
HEAD = """# Clients

Stock clients against a running platform, unchanged but for base URL and key. `make conformance` installs each into an
environment of its own, starts a platform with the real engine on small checkpoints with random weights, runs
`tests/conformance/clients` and writes this page; the oldest and the newest Mistral client and OpenAI's are part of
`make test`.

"yes": it works, and the answer is what was asked for. "-": the client has no way to ask. At errors stands the exception
that the client raises; each knows the status and says the server's sentence. "client": it cannot, for the reason below.
A failure of the platform would say **no**.

"""


@contextmanager
def platform() -> Iterator[Installation]:
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        made = Installation(Path(folder), real_engines=True)
        made.ok("up", "--detach", "--port", "0")
        try:
            yield made
        finally:
            made.ok("down")


def measure(clients: Sequence[str]) -> list[Told]:
    """Of each client what it told; as one feature more, whether its usage is what was metered."""
    rows = []
    with platform() as installation:
        for client in clients:
            world, key_id = open_world(installation, client)
            told = run_client(client, PYTHONS.get(client, python_of(client)), world)
            counted = metered(installation, key_id, told.silent_tiers)
            told.found["usage"] = (
                ("ok", "") if counted == told.tokens else ("failed", f"{told.tokens}, metered {counted}")
            )
            rows.append(told)
            sys.stdout.write(f"{client}: {told.failures or 'ok'}\n")
            sys.stdout.flush()
    return rows


def page(rows: Sequence[Told], date: str, commit: str) -> str:
    notes: list[str] = []

    def mark(reason: str) -> str:
        if reason not in notes:
            notes.append(reason)
        return f"<sup>{notes.index(reason) + 1}</sup>"

    def cell(told: Told, feature: str) -> str:
        result, note = told.found[feature]
        known = DEFECTS.get((told.package, told.version, feature))
        if known is not None:
            return f"client {mark(known)}"
        if result == "not offered":
            return "-"
        if result == "failed":
            return "**no**"
        if feature.startswith("error_"):
            return f"`{note}`"
        return f"yes {mark(note)}" if note else "yes"

    lines = [
        "| | " + " | ".join(f"{told.package} {told.version}" for told in rows) + " |",
        "|---" * (len(rows) + 1) + "|",
        *(f"| {title} | " + " | ".join(cell(told, name) for told in rows) + " |" for name, title in SHOWN.items()),
    ]
    told_notes = "".join(f"{number}. {note}\n" for number, note in enumerate(notes, start=1))
    return f"{HEAD}Made on {date} from commit {commit}.\n\n" + "\n".join(lines) + f"\n\n{told_notes}"


def main(names: Sequence[str]) -> int:
    rows = measure(names or CLIENTS)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    written = page(rows, datetime.now(UTC).date().isoformat(), commit.stdout.strip())
    if names:
        sys.stdout.write(written)
    else:
        PAGE.write_text(written)
    return int(any(told.failures for told in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
