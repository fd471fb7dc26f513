"""`tramontane credit` and `prices` on an installation that does not run."""

import json

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from cli import credit, prices
from cli.migrate import run
from core.db import connect_database
from core.errors import SetupError
from gateway.accounts.models import AuditEntry

PLAN = 'requests_per_minute = 1\ntokens_per_minute = 1\nconcurrency = 1\ncredit = "1.50"\n'


def config(price):
    tier = f'[tiers.tiny]\nengine = "echo"\nweights = ""\ncontext_tokens = 9\nprice = {{ input = "{price}" }}\n'
    return f"[plans.development]\n{PLAN}{tier}"


@pytest.fixture
def home(tmp_path, monkeypatch):
    file = tmp_path / "tramontane.toml"
    file.write_text(config("0.14"))
    monkeypatch.setenv("TRAMONTANE_CONFIG", str(file))
    monkeypatch.setenv("TRAMONTANE_HOME", str(tmp_path / "home"))
    run()
    return tmp_path


def call(app, *arguments):
    answer = CliRunner().invoke(app, [*arguments, "--json"])
    if answer.exception is not None:
        raise answer.exception
    return json.loads(answer.stdout)


def test_credit_from_the_plan_to_a_correction(home):
    assert call(credit.app, "show", "default")["balance"] == "1.50"
    for _ in range(2):
        assert call(credit.app, "top-up", "default", "10", "--key", "invoice-7")["balance"] == "11.50"
    given = call(credit.app, "grant", "default", "0.25", "--expires", "2099-01-01T00:00:00Z", "--note", "thanks")
    assert (given["available"], given["held"], given["owed"]) == ("11.75", "0.00", "0.00")
    assert [each["kind"] for each in given["grants"]] == ["promo", "plan", "topup"]
    assert call(credit.app, "correct", "default", "-1", "--against", "cash")["balance"] == "10.75"
    assert call(credit.app, "set-limit", "default", "5")["available"] == "15.75"
    for _ in range(2):
        assert call(credit.app, "correct", "default", "1", "--against", "loss", "--key", "c")["balance"] == "11.75"
    assert call(credit.app, "correct", "default", "-1", "--against", "cash")["balance"] == "10.75"
    answer = CliRunner().invoke(credit.app, ["show", "default"])
    assert "balance    10.75" in answer.stdout
    assert "thanks" in answer.stdout


def test_each_act_is_in_the_audit_log_once_with_what_was_before(home):
    for _ in range(2):
        call(credit.app, "top-up", "default", "10", "--key", "invoice-7")
        call(credit.app, "correct", "default", "-1", "--against", "cash", "--key", "mistake")
        call(credit.app, "set-limit", "default", "5")
    database = connect_database(f"sqlite:///{home / 'home' / 'tramontane.sqlite3'}")
    with database.reading() as session:
        entries = session.scalars(
            select(AuditEntry).where(AuditEntry.target_kind == "credit_account").order_by(AuditEntry.id)
        ).all()
        acts = [(entry.action, entry.before, entry.after) for entry in entries if entry.action != "credit.grant"]
    database.close()
    assert [action for action, _, _ in acts] == ["credit.top_up", "credit.correct", "credit.set_limit"]
    assert acts[1][1] == {"posted_nano": 11_500_000_000}
    assert acts[1][2]["posted_nano"] == 10_500_000_000
    assert acts[2][1:] == ({"limit_nano": 0}, {"limit_nano": 5_000_000_000})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("top-up", "default", "ten"), "decimal string"),
        (("top-up", "default", "-1"), None),
        (("top-up", "nobody", "1"), "nobody"),
        (("correct", "default", "-2", "--against", "cash"), "not so much credit"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(home, arguments, says):
    answer = CliRunner().invoke(credit.app, list(arguments))
    if says is None:
        assert answer.exit_code == 2  # a wrong command line
    else:
        assert isinstance(answer.exception, SetupError)
        assert says in str(answer.exception)
    assert call(credit.app, "show", "default")["balance"] == "1.50"


def test_a_file_that_differs_becomes_a_new_version_once(home):
    (kept,) = call(prices.app, "list")["prices"]
    assert (kept["version"], kept["input"], kept["start_ms"]) == ("launch:tiny", "0.14", 0)
    file = home / "new.toml"
    file.write_text(config("0.20"))
    for _ in range(2):
        (change,) = call(prices.app, "apply", str(file), "--dry-run")["changes"]
        assert (change["before"]["input"], change["input"]) == ("0.14", "0.20")
    shown = CliRunner().invoke(prices.app, ["apply", str(file), "--name", "v2"]).stdout
    assert "0.14 -> 0.20" in shown
    assert call(prices.app, "apply", str(file), "--name", "v3") == {"changes": []}
    assert [each["version"] for each in call(prices.app, "list")["prices"]] == ["launch:tiny", "v2:tiny"]
    assert "v2:tiny" in CliRunner().invoke(prices.app, ["list"]).stdout
