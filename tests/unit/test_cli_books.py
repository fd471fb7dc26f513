"""`tramontane books` and `tramontane refusals` over a real database and a real Redis."""

import asyncio
import json

import pytest
import redis
from sqlalchemy import update

from billing.models import UsageHour
from billing.records import store
from billing.rollups import HOUR_MS
from cli.money import books, refusals
from core.clock import SystemClock
from core.db import connect_database
from core.meter.refusals import RedisRefusalLog, RefusalEvent
from core.redis import connect
from migrations.run import migrate
from tests.books import fund
from tests.usage_events import usage_event

NOW_MS = 1_700_000_000_000


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAMONTANE_HOME", str(tmp_path))
    monkeypatch.setenv("TRAMONTANE_DATABASE_URL", f"sqlite:///{tmp_path}/tramontane.sqlite3")
    monkeypatch.delenv("TRAMONTANE_REDIS_URL", raising=False)
    migrate(f"sqlite:///{tmp_path}/tramontane.sqlite3")
    return tmp_path


@pytest.fixture
def database(home):
    database = connect_database(f"sqlite:///{home}/tramontane.sqlite3")
    fund(database, "o1")
    free = {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0, "cost_nano": 0}
    store(database, [usage_event(number, admitted_ms=NOW_MS + number * HOUR_MS, **free) for number in range(3)], NOW_MS)
    yield database
    database.close()


def test_books_in_order_are_exit_code_0(database, capsys):
    assert books.check(None, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"]
    assert told["looked_at"]["records"] == 3
    assert told["skipped"] == ["holds: nothing runs, so Redis was not asked"]
    assert books.check(None, as_json=False) == 0
    assert "3 records" in capsys.readouterr().out


def test_a_disagreement_is_exit_code_1_and_a_rebuild_mends_roll_ups(database, capsys):
    with database.unit_of_work() as session:
        session.execute(update(UsageHour).values(requests=7))
    assert books.check(None, as_json=True) == 1
    assert (
        json.loads(capsys.readouterr().out)["counts"]["rollups"] == 5
    )  # three hours, and the two days that they are not the sums of
    assert books.check("2030-01-01", as_json=False) == 0
    capsys.readouterr()
    books.rebuild(None, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"hours": 3, "rows_mended": 6}
    assert books.check(None, as_json=False) == 0


def test_refusals_are_listed_youngest_first(database, home, monkeypatch, capsys, bundled_socket):
    monkeypatch.setenv("TRAMONTANE_REDIS_URL", f"unix://{bundled_socket}")
    with redis.Redis(unix_socket_path=bundled_socket) as client:
        client.flushall()
    numbers = {"workspace": "", "key_id": "", "route": "/v1/models", "tier": "", "status": 401, "code": "", "rule": ""}
    events = [
        RefusalEvent(f"r{at}", "", **numbers, scope="", limit=0, remaining=0, at_ms=NOW_MS + at, left_out=at)
        for at in range(3)
    ]
    asyncio.run(append(bundled_socket, events))
    refusals.show(None, None, 2, as_json=True)
    told = json.loads(capsys.readouterr().out)["refusals"]
    assert [event["request_id"] for event in told] == ["r2", "r1"]
    refusals.show(None, None, 50, as_json=False)
    assert "/v1/models" in capsys.readouterr().out


async def append(path, events):
    client = connect(f"unix://{path}", 5.0)
    await RedisRefusalLog(client, "c0", SystemClock()).append(events)
    await client.aclose()
