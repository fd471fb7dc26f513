"""`tramontane pools` over a real Redis and a real database."""

import asyncio
import json

import pytest
import redis
from sqlalchemy import select

from cli import pool_work
from core.db import connect_database
from core.errors import SetupError
from core.meter.keys import cell_key
from core.queue.base import QueueSettings, TierBounds, WorkerSlot
from core.queue.redis import RedisWorkerQueue
from core.redis import connect
from core.wire import CHAT, Job, pack_job
from gateway.accounts.models import AuditEntry
from migrations.run import migrate
from tests.redis_servers import bundled_socket

__all__ = ["bundled_socket"]
CONFIG = """
[plans.development]
requests_per_minute = 60
tokens_per_minute = 1000
concurrency = 4
credit = "1"
[tiers.tiny]
engine = "echo"
weights = "none"
context_tokens = 512
price = { input = "0.1" }
"""
SETTINGS = QueueSettings("c0", 60_000, {"tiny": TierBounds(100, 0.25)})


@pytest.fixture
def url(tmp_path, monkeypatch, bundled_socket):
    url = f"unix://{bundled_socket}"
    with redis.Redis.from_url(url) as client:
        client.flushall()
    (tmp_path / "tiers.toml").write_text(CONFIG)
    for name, value in {
        "HOME": str(tmp_path),
        "CONFIG": str(tmp_path / "tiers.toml"),
        "DATABASE_URL": f"sqlite:///{tmp_path}/t.sqlite3",
        "REDIS_URL": url,
    }.items():
        monkeypatch.setenv(f"TRAMONTANE_{name}", value)
    migrate(f"sqlite:///{tmp_path}/t.sqlite3")
    asyncio.run(register(url))
    return url


async def register(url):
    client = connect(url, 5.0)
    await RedisWorkerQueue(client, SETTINGS).take(WorkerSlot("w1", "tiny", 4), 0, 0)
    await client.aclose()


def told(capsys):
    return json.loads(capsys.readouterr().out)


def shown(capsys):
    pool_work.show(as_json=True)
    return told(capsys)


def audited(tmp_path):
    database = connect_database(f"sqlite:///{tmp_path}/t.sqlite3")
    with database.reading() as session:
        found = [
            (entry.action, entry.target_id) for entry in session.scalars(select(AuditEntry).order_by(AuditEntry.id))
        ]
    database.close()
    return found


def test_a_tier_and_a_worker_are_drained_and_resumed_and_that_is_noted(url, tmp_path, capsys):
    assert shown(capsys)["tiers"]["tiny"]["workers"][0]["worker_id"] == "w1"
    pool_work.drain("tiny", "", as_json=False)
    pool_work.drain("tiny", "w1", as_json=False)
    assert capsys.readouterr().out == "tiny takes nothing more.\nw1 of tiny takes nothing more.\n"
    line = shown(capsys)["tiers"]["tiny"]
    assert (line["drained"], line["workers"][0]["drained"]) == (True, True)
    pool_work.resume("tiny", "", as_json=True)
    assert told(capsys) == {"tier": "tiny", "worker": ""}
    line = shown(capsys)["tiers"]["tiny"]
    assert (line["drained"], line["workers"][0]["drained"]) == (False, True)
    pool_work.show(as_json=False)
    assert "drained" in capsys.readouterr().out
    assert audited(tmp_path) == [("pool.drain", "tiny"), ("pool.drain", "tiny/w1"), ("pool.resume", "tiny")]


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: pool_work.drain("none", "", as_json=False), "no tier none"),
        (lambda: pool_work.drain("tiny", "w9", as_json=False), "no pool tiny/w9"),
        (lambda: pool_work.drop("1-1", as_json=False), "no dead_letter 1-1"),
        (lambda: pool_work.requeue("1-2", as_json=False), "no dead_letter 1-2"),
        (lambda: pool_work.drop("x", as_json=False), "x is no letter"),
    ],
)
def test_what_is_not_there_is_one_sentence_and_not_noted(url, tmp_path, act, says):
    with pytest.raises(SetupError, match=says):
        act()
    assert audited(tmp_path) == []


def test_letters_are_listed_run_again_and_dropped(url, tmp_path, capsys):
    ids = bury(url), bury(url)
    pool_work.letters(as_json=True)
    assert [letter["letter_id"] for letter in told(capsys)["letters"]] == list(reversed(ids))
    pool_work.letters(as_json=False)
    assert "acme" in capsys.readouterr().out
    pool_work.requeue(ids[0], as_json=True)
    assert told(capsys)["id"] == ids[0]
    assert shown(capsys)["tiers"]["tiny"]["queued"] == 1
    pool_work.drop(ids[1], as_json=True)
    assert told(capsys) == {"id": ids[1]}
    assert shown(capsys)["dead_letters"] == 0
    assert [action for action, _ in audited(tmp_path)] == ["dead_letter.requeue", "dead_letter.drop"]


def bury(url):
    """As the scripts leave it."""
    job = Job("r", "g", "acme", "main", "tiny", CHAT, 2**50, prompt_tokens=1, cost_expected=2, prompt_ids=(5,))
    letter = {
        "request_id": "r",
        "tier": "tiny",
        "organisation": "acme",
        "workspace": "main",
        "lost_ms": "7",
        "j": pack_job(job),
    }
    with redis.Redis.from_url(url) as client:
        return client.xadd(f"{cell_key('c0')}:dead", letter).decode()
