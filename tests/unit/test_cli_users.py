"""`tramontane users` on an installation that does not run."""

import json

import pytest
from typer.testing import CliRunner

from cli import keys, users
from cli.migrate import run
from core.errors import SetupError
from gateway.accounts.roles import Role

PLAN = 'requests_per_minute = 1\ntokens_per_minute = 1\nconcurrency = 1\ncredit = "1.50"\n'


@pytest.fixture
def home(tmp_path, monkeypatch):
    file = tmp_path / "tramontane.toml"
    file.write_text(f"[plans.development]\n{PLAN}")
    monkeypatch.setenv("TRAMONTANE_CONFIG", str(file))
    monkeypatch.setenv("TRAMONTANE_HOME", str(tmp_path / "home"))
    run()
    return tmp_path


def call(*arguments, app=users.app):
    answer = CliRunner().invoke(app, [*arguments, "--json"])
    if answer.exception is not None:
        raise answer.exception
    return json.loads(answer.stdout)


def say(*arguments):
    answer = CliRunner().invoke(users.app, arguments)
    assert answer.exception is None, answer.exception
    return answer.stdout


def test_from_the_first_user_to_the_last(home, monkeypatch):
    monkeypatch.setenv("TRAMONTANE_PUBLIC_URL", "https://api.example.com")
    made = call("create", "Ada@example.com", "--org", "default", "--role", "owner")
    assert made["email"] == "ada@example.com"
    assert made["link"].startswith("https://api.example.com/console/links/")
    call("create", "root@example.com", "--operator", "--name", "Root")
    assert [user["is_operator"] for user in sorted(call("list")["users"], key=lambda user: user["email"])] == [
        False,
        True,
    ]
    (member,) = call("list", "--org", "default")["users"]
    assert (member["name"], member["role"], member["workspaces"]) == ("Ada", "owner", {})

    call("set-role", "root@example.com", "admin")
    call("set-role", "root@example.com", "viewer", "--workspace", "default")
    shown = call("show", "root@example.com")
    assert shown["roles"] == {"default": "admin"}
    assert shown["workspace_roles"] == [{"organisation": "default", "workspace": "default", "role": "viewer"}]
    assert "default/default: viewer" in say("show", "root@example.com")
    assert "root@example.com" in say("list")
    assert "default: viewer" in say("list", "--org", "default")

    assert call("remove", "root@example.com", "--workspace", "default") == {
        "id": shown["id"],
        "keys_revoked": [],
        "keys_kept": [],
    }
    assert "is removed" in say("remove", "root@example.com")
    assert "owner" in str(refusal("remove", "ada@example.com"))
    assert "is disabled" in say("disable", "ada@example.com")
    assert call("show", "ada@example.com")["disabled_ms"] is not None
    assert call("enable", "ada@example.com") == {"id": made["id"]}
    assert call("service-account", "ci")["id"] != made["id"]
    assert call("list", "--workspace", "default", app=keys.app)["keys"] == []


def refusal(*arguments):
    with pytest.raises(SetupError) as error:
        call(*arguments)
    return error.value


def test_links_are_shown_where_there_is_no_mail(home):
    assert "This link works once" in say("invite", "bob@example.com", "--role", "viewer")
    invited = call("invite", "bob@example.com", "--workspace", "default")
    assert invited["link"].startswith("http://127.0.0.1:8000/console/links/")
    call("create", "ada@example.com")
    assert "another password" in say("reset-password", "ada@example.com")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "nobody@example.com"), "no user"),
        (("create", "nobody"), "no e-mail address"),
        (("invite", "a@example.com", "--org", "nowhere"), "nowhere"),
        (("set-role", "nobody@example.com", "admin"), "no user"),
        (("remove", "nobody@example.com"), "no user"),
        (("service-account", "ci", "--role", "owner"), "owner"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(home, arguments, says):
    assert says in str(refusal(*arguments))


def test_a_mail_server_that_is_away_or_set_wrongly(home, monkeypatch):
    monkeypatch.setenv("TRAMONTANE_MAIL_FROM", "tramontane@example.com")
    monkeypatch.setenv("TRAMONTANE_SMTP_URL", "http://secret@host")
    assert "TRAMONTANE_SMTP_URL" in str(refusal("create", "ada@example.com"))
    assert call("list")["users"] == []  # found before anything was done
    monkeypatch.setenv("TRAMONTANE_SMTP_URL", "smtp+plain://127.0.0.1:1")
    said = str(refusal("invite", "ada@example.com"))
    assert "could not be mailed" in said
    assert "links/" not in said


def test_the_roles_to_choose_from_are_those_there_are():
    assert [role.value for role in users.RoleChoice] == [role.value for role in Role]
