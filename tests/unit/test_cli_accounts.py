"""`tramontane orgs | workspaces | keys | limits`, on a SQLite installation that does not run."""

import json

import pytest
from typer.testing import CliRunner

from cli.main import app
from core.errors import SetupError
from gateway.accounts.keys import key_id_of

RUNNER = CliRunner()


class Commands:
    def ok(self, *arguments):
        answer = RUNNER.invoke(app, arguments, catch_exceptions=False)
        assert answer.exit_code == 0, answer.output
        return answer.stdout

    def json(self, *arguments):
        return json.loads(self.ok(*arguments, "--json"))

    def refused(self, *arguments):
        with pytest.raises(SetupError) as caught:
            RUNNER.invoke(app, arguments, catch_exceptions=False)
        return str(caught.value)


@pytest.fixture
def commands(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAMONTANE_HOME", str(tmp_path / "home"))
    made = Commands()
    made.ok("migrate")
    return made


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    """One installation for all that is refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAMONTANE_HOME", str(tmp_path_factory.mktemp("refusals") / "home"))
        made = Commands()
        made.ok("migrate")
        yield made


def test_an_operator_makes_an_organisation_with_keys_and_limits(commands):
    organisation = commands.json("orgs", "create", "acme", "--time-zone", "Europe/Rome")["id"]
    workspace = commands.json("workspaces", "create", "lab", "--org", "acme")["id"]
    made = commands.json(
        *("keys", "create", "--name", "ci", "--workspace", "lab", "--org", "acme", "--scope", "inference"),
        *("--tier", "mistral-tiny", "--network", "10.0.0.0/8", "--expires", "2100-01-01T00:00:00Z"),
    )
    assert key_id_of(made["key"]) == made["id"]
    (listed,) = commands.json("keys", "list", "--org", "acme")["keys"]
    assert (listed["id"], listed["organisation_id"], listed["workspace_id"]) == (made["id"], organisation, workspace)
    assert (listed["scopes"], listed["tiers"], listed["networks"]) == (["inference"], ["mistral-tiny"], ["10.0.0.0/8"])
    assert listed["expires_ms"] == 4_102_444_800_000
    assert made["key"] not in commands.ok("keys", "list")
    limit = commands.json("limits", "set", "key", made["id"], "spend_per_month", "12.50")["id"]
    commands.ok("limits", "set", "workspace", workspace, "concurrency", "0", "--tier", "mistral-tiny", "--soft")
    (shown,) = commands.json("limits", "list", "key", made["id"])["limits"]
    assert (shown["id"], shown["value"], shown["hard"]) == (limit, 12_500_000_000, True)
    assert "12.50" in commands.ok("limits", "list", "key", made["id"])
    assert "soft" in commands.ok("limits", "list", "workspace", workspace)
    commands.ok("limits", "remove", limit)
    assert commands.json("limits", "list", "key", made["id"]) == {"limits": []}
    facts = commands.json("orgs", "show", "acme")
    assert (facts["id"], facts["time_zone"], facts["status"]) == (organisation, "Europe/Rome", "active")


def test_a_key_goes_to_the_default_workspace_and_is_rotated_and_revoked(commands):
    key = commands.ok("keys", "create", "--name", "mine").strip()
    rotated = commands.json("keys", "rotate", key_id_of(key), "--overlap-s", "60")
    assert rotated["id"] == key_id_of(rotated["key"]) == key_id_of(key)
    assert rotated["key"] != key
    assert "is revoked" in commands.ok("keys", "revoke", rotated["id"])
    (listed,) = commands.json("keys", "list")["keys"]
    assert listed["organisation"] == listed["workspace"] == "default"
    assert listed["revoked_ms"] is not None


def test_organisations_and_workspaces_are_changed(commands):
    commands.ok("orgs", "create", "acme")
    commands.ok("orgs", "rename", "acme", "apex")
    commands.ok("orgs", "suspend", "apex")
    commands.ok("orgs", "set-lenient", "apex", "--on")
    commands.ok("orgs", "set-plan", "apex", "development")
    assert "suspended" in commands.ok("orgs", "list")
    found = {one["name"]: one for one in commands.json("orgs", "list")["organisations"]}
    assert (found["apex"]["status"], found["apex"]["lenient"]) == ("suspended", True)
    commands.ok("orgs", "resume", "apex")
    assert "active" in commands.ok("orgs", "show", "apex")
    commands.ok("workspaces", "create", "lab", "--org", "apex")
    commands.ok("workspaces", "rename", "lab", "laboratory")
    commands.ok("workspaces", "set-lenient", "laboratory", "off")
    commands.ok("workspaces", "archive", "laboratory")
    (default, lab) = commands.json("workspaces", "list", "--org", "apex")["workspaces"]
    assert (default["is_default"], lab["name"], lab["lenient"]) == (True, "laboratory", False)
    assert lab["archived_ms"] is not None
    assert "as its organisation" in commands.ok("workspaces", "list")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("orgs", "create", "default"), "taken"),
        (("orgs", "show", "nobody"), "no organisation"),
        (("orgs", "create", "x", "--time-zone", "Mars"), "IANA"),
        (("workspaces", "archive", "default"), "default workspace"),
        (("keys", "create", "--name", "n", "--tier", "mistral-huge"), "no tier"),
        (("keys", "create", "--name", "n", "--expires", "soon"), "--expires"),
        (("keys", "create", "--name", "n", "--scope", "inference", "--scope", "operator"), "make two"),
        (("keys", "rotate", "0000000000"), "no key"),
        (("limits", "set", "plan", "development", "concurrency", "many"), "whole number"),
        (("limits", "set", "plan", "development", "spend_per_day", "1e3"), "decimal"),
        (("limits", "list", "key", "0000000000"), "no key"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(unchanged, arguments, says):
    assert says in unchanged.refused(*arguments)
