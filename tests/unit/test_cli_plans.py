"""`tramontane plans` on an installation that does not run."""

import json

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.migrate import run
from core.errors import SetupError

PLAN = '[plans.{name}]\nrequests_per_minute = {rpm}\ntokens_per_minute = 1\nconcurrency = 1\ncredit = "1.50"\n{more}'
TIER = '[tiers.tiny]\nengine = "echo"\nweights = ""\ncontext_tokens = 9\nprice = { input = "0.14" }\n'


def plan(name="development", rpm=1, more=""):
    return PLAN.format(name=name, rpm=rpm, more=more)


@pytest.fixture
def home(tmp_path, monkeypatch):
    file = tmp_path / "tramontane.toml"
    file.write_text(plan() + TIER)
    monkeypatch.setenv("TRAMONTANE_CONFIG", str(file))
    monkeypatch.setenv("TRAMONTANE_HOME", str(tmp_path / "home"))
    run()
    return tmp_path


def call(*arguments):
    answer = CliRunner().invoke(app, ["plans", *arguments], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def test_a_file_that_differs_is_shown_and_applied_once(home):
    (kept,) = json.loads(call("list", "--json"))["plans"]
    assert (kept["name"], kept["credit"], kept["weight"], len(kept["limits"])) == ("development", "1.50", 1, 3)
    file = home / "plans.toml"
    file.write_text(plan(rpm=7) + plan("business", 100, 'weight = 4\nspend_per_month = "20"\n'))
    for _ in range(2):
        changes = json.loads(call("apply", str(file), "--dry-run", "--json"))["changes"]
        assert [change["after"]["name"] for change in changes] == ["development", "business"]
        assert changes[1]["before"] is None
    shown = call("apply", str(file))
    assert [word in shown for word in ("requests_per_minute", "20.00", "business")] == [True] * 3
    assert call("apply", str(file)) == "Nothing differs.\n"
    assert json.loads(call("apply", str(file), "--json")) == {"changes": []}
    business, development = json.loads(call("list", "--json"))["plans"]
    assert (business["name"], business["weight"]) == ("business", 4)
    assert {"kind": "requests_per_minute", "tier": "", "value": 7, "hard": True} in development["limits"]
    assert "spend_per_month 20.00" in call("list")


def test_a_whole_configuration_is_a_file_of_plans_too(home):
    assert call("apply", str(home / "tramontane.toml")) == "Nothing differs.\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[plans", "not valid TOML"),
        ("", "plans"),
        (plan(rpm=0), "greater than 0"),
        (plan(more="colour = 1\n"), "colour"),
    ],
)
def test_a_file_that_says_nothing_good_is_one_sentence(home, text, says):
    file = home / "bad.toml"
    file.write_text(text)
    with pytest.raises(SetupError, match=says):
        call("apply", str(file))
    with pytest.raises(SetupError, match="cannot be read"):
        call("apply", str(home / "none.toml"))
