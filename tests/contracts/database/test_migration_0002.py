"""What version 0001 held survives the way to limits and secrets of their own, and back."""

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from core.clock import ManualClock
from core.db import connect_database, parse_database_url, sqlite_file
from core.queue.rules import Rule, RuleKind
from gateway.accounts.loading import load_principal
from tests.accounts_world import PEPPERS

CONFIG = Config(Path(__file__).parents[3] / "alembic.ini")
KEY = "tmt_0123456789_" + "x" * 38
ROWS = (
    "INSERT INTO plans VALUES ('development', 60, 1000, 5, 7, 2)",
    "INSERT INTO organisations VALUES ('o1', 'default', 'development', 3, 1)",
    "INSERT INTO workspaces VALUES ('w1', 'o1', 'default', 1), ('w2', 'o1', 'lab', 2)",
    "INSERT INTO api_keys VALUES ('0123456789', 'w2', 'old', '{digest}', 'xxxx', '[\"inference\"]', 4, NULL, NULL)",
)
PLAN = "SELECT name, requests_per_minute, tokens_per_minute, concurrency, credit_nano, weight FROM plans"
KEYS = "SELECT id, workspace_id, name, digest, hint, created_ms FROM api_keys"


@pytest.fixture
def first_version(empty_url, monkeypatch):
    monkeypatch.setenv("TRAMONTANE_DATABASE_URL", empty_url)
    if file := sqlite_file(parse_database_url(empty_url)):
        file.parent.mkdir()
    command.upgrade(CONFIG, "0001")
    database = connect_database(empty_url)
    with database.unit_of_work() as session:
        for row in ROWS:
            session.connection().exec_driver_sql(row.format(digest=PEPPERS.digest(KEY)))
    yield database
    database.close()


def test_keys_and_limits_are_kept_on_the_way_up_and_down(first_version):
    command.upgrade(CONFIG, "head")
    with first_version.reading() as session:
        loaded = load_principal(session, "0123456789", PEPPERS.digests(KEY), (), ManualClock().now_ms())
        defaults = session.execute(text("SELECT id FROM workspaces WHERE is_default")).scalars().all()
    principal = loaded.principal
    assert principal is not None, loaded.refusal
    assert (principal.organisation, principal.workspace, principal.generation, principal.weight) == ("o1", "w2", 3, 2)
    assert principal.rules == (
        Rule(RuleKind.REQUESTS_PER_MINUTE, "organisation", "o1", 60),
        Rule(RuleKind.TOKENS_PER_MINUTE, "organisation", "o1", 1000),
        Rule(RuleKind.CONCURRENCY, "organisation", "o1", 5),
    )
    assert defaults == ["w1"]
    command.downgrade(CONFIG, "0001")
    with first_version.reading() as session:
        assert session.execute(text(PLAN)).all() == [("development", 60, 1000, 5, 7, 2)]
        assert session.execute(text(KEYS)).all() == [("0123456789", "w2", "old", PEPPERS.digest(KEY), "xxxx", 4)]
