"""Pools on the operators' page: what workers do and what waits, drain and resume, dead letters; noted who did it."""

import asyncio
import csv
import io

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from billing.records import store
from core.meter.refusals import RefusalEvent
from core.pools import DeadLetter
from core.queue.base import WorkerSlot
from core.queue.memory import MemoryWorkerQueue
from gateway.accounts.models import AuditEntry
from gateway.accounts.roles import Role
from gateway.console.live import event
from tests.books import fund
from tests.console.queries import counted
from tests.console.world import text_of
from tests.usage_events import usage_event

PATH = "/operator/pools"
W1, W2 = WorkerSlot("w1", "auto", 8), WorkerSlot("w2", "auto", 4)
WAIT_S = 5.0


def broker(console):
    return console.services.pools._broker


async def work(console, *slots):
    """Workers that have reported."""
    queue = MemoryWorkerQueue(broker(console))
    for slot in slots:
        await queue.take(slot, 1, 0)
    return queue


def acts(console):
    with console.accounts.database.reading() as session:
        found = session.query(AuditEntry).filter(AuditEntry.target_kind.in_(("pool", "dead_letter")))
        return [(entry.action, entry.target_id, entry.organisation) for entry in found.order_by(AuditEntry.id)]


async def test_the_page_tells_workers_rates_and_refusals(console):
    await work(console, W1, W2)
    now_ms = console.accounts.clock.now_ms()
    fund(console.accounts.database, console.ash.id)
    events = [
        usage_event(
            number, organisation=console.ash.id, tier="auto", admitted_ms=now_ms - 30_000, settled_ms=now_ms - 9_000
        )
        for number in range(1, 31)
    ]
    store(console.accounts.database, events, now_ms)
    refusal = RefusalEvent(
        "r1", console.ash.id, "", "", "", "auto", 429, "", "requests_per_minute", "key", 60, 0, now_ms
    )
    await console.services.refusals.append([refusal, refusal])
    browser = console.as_operator()
    with counted(console.accounts.database) as statements:
        page = await browser.get(PATH)
    assert len(statements) <= 7, statements  # four of them for who looks
    text = text_of(page)
    assert "auto serving Drain" in text
    assert "Slots busy 0 of 12" in text
    assert "Admitted 0.50 per s Finished 0.50 per s" in text
    assert "2 by requests_per_minute" in text
    assert "manual no workers" in text
    assert "There are none: no request lost three workers." in text
    exported = await browser.get(f"{PATH}?format=csv&sort=-slots")
    rows = list(csv.DictReader(io.StringIO(exported.text)))
    assert [(row["worker"], row["slots"], row["state"]) for row in rows] == [
        ("w1", "8", "working"),
        ("w2", "4", "working"),
    ]
    found = text_of(await browser.get(f"{PATH}?q=w2"))
    assert "1 of 2 workers" in found


async def test_a_worker_and_a_tier_are_drained_and_resumed(console):
    await work(console, W1)
    browser = console.as_operator()
    told = await browser.post(f"{PATH}/auto/drain", worker="w1")
    assert (told.status_code, told.headers["location"]) == (303, f"/console{PATH}")
    assert "w1 takes nothing more" in browser.notice
    assert (await browser.post(f"{PATH}/auto/drain")).status_code == 303
    overview = await console.services.pools.overview(["auto"])
    assert overview.tiers["auto"].drained
    assert overview.tiers["auto"].workers[0].drained
    console.accounts.clock.advance(2_000)
    page = text_of(await browser.get(PATH))
    assert "auto drained Resume" in page
    assert (await browser.post(f"{PATH}/auto/resume", worker="w1")).status_code == 303
    assert (await browser.post(f"{PATH}/auto/resume")).status_code == 303
    assert not (await console.services.pools.overview(["auto"])).tiers["auto"].drained
    verbs = [
        ("pool.drain", "auto/w1", ""),
        ("pool.drain", "auto", ""),
        ("pool.resume", "auto/w1", ""),
        ("pool.resume", "auto", ""),
    ]
    assert acts(console) == verbs
    for path, worker in ((f"{PATH}/auto/drain", "nobody"), (f"{PATH}/none/drain", None), (f"{PATH}/auto/paint", None)):
        assert (await browser.post(path, worker=worker)).status_code == 404
    assert acts(console) == verbs, "what could not be done is not noted"


async def test_while_redis_is_away_nothing_is_noted(quick_console, monkeypatch):
    async def away(*_arguments):
        raise RedisConnectionError("gone")

    monkeypatch.setattr(quick_console.services.pools, "drain", away)
    browser = quick_console.as_operator()
    assert (await browser.post(f"{PATH}/auto/drain")).status_code == 503
    assert acts(quick_console) == []
    monkeypatch.setattr(quick_console.services.pools, "overview", away)
    assert (await browser.get(PATH)).status_code == 503


class Letters:
    """As a cell keeps them; what is run again is noted under its new id."""

    def __init__(self, *letters):
        self.kept, self.run = {letter.letter_id: letter for letter in letters}, {}

    async def dead_letters(self, count):
        return list(self.kept.values())[:count]

    async def requeue(self, letter_id, request_id):
        found = self.kept.get(letter_id)
        if found is None or not found.runnable:
            return False
        self.run[request_id] = self.kept.pop(letter_id)
        return True

    async def drop(self, letter_id):
        return self.kept.pop(letter_id, None) is not None


async def test_dead_letters_are_run_again_or_dropped(quick_console, monkeypatch):
    ash, birch = quick_console.ash.id, quick_console.birch.id
    letters = Letters(
        DeadLetter("9-0", "c0" + "9" * 30, "auto", ash, "w", 9_000, runnable=True),
        DeadLetter("8-0", "c0" + "8" * 30, "auto", birch, "w", 8_000, runnable=False),
    )
    browser = quick_console.as_operator()
    for name in ("dead_letters", "requeue", "drop"):
        monkeypatch.setattr(quick_console.services.pools, name, getattr(letters, name))
    page = await browser.get(PATH)
    assert "2 dead letters" in text_of(page)
    assert "birch" in text_of(page)
    assert page.text.count("Run once more</button>") == 2, "for one of them: the button, and that of its window"
    assert (await browser.post(f"{PATH}/letters/8-0/requeue")).status_code == 404
    assert (await browser.post(f"{PATH}/letters/9-0/requeue")).status_code == 303
    [request_id] = letters.run
    assert request_id in browser.notice
    assert (await browser.post(f"{PATH}/letters/8-0/drop")).status_code == 303
    assert (await browser.post(f"{PATH}/letters/8-0/drop")).status_code == 404
    assert acts(quick_console) == [("dead_letter.requeue", "9-0", ""), ("dead_letter.drop", "8-0", "")]


async def test_the_live_parts_say_what_the_page_says(quick_console, monkeypatch):
    await work(quick_console, W1)
    browser = quick_console.as_operator()
    page = await browser.get(f"{PATH}?sort=-slots")
    assert 'sse-connect="/console/operator/pools/live"' in page.text
    assert 'sse-connect="/console/operator/pools/live/workers?about=workers&amp;sort=-slots"' in page.text

    def then_drain(name, text):
        quick_console.services.lifecycle.draining = True  # the stream sends what it has, and ends
        return event(name, text)

    monkeypatch.setattr("gateway.console.live.event", then_drain)
    for path, name, says in (("live", "tiers", "auto"), ("live/workers", "rows", "w1")):
        quick_console.services.lifecycle.draining = False
        async with asyncio.timeout(WAIT_S):
            sent = await browser.get(f"{PATH}/{path}")
        assert sent.headers["content-type"].startswith("text/event-stream")
        assert f"event: {name}" in sent.text
        assert says in sent.text


@pytest.mark.parametrize("path", [PATH, f"{PATH}/live", f"{PATH}/live/workers"])
async def test_only_operators_see_it(quick_console, path):
    for role in Role:
        assert (await quick_console.as_role(role.value).get(path)).status_code in {403, 404}


async def test_only_operators_change_anything(quick_console):
    await work(quick_console, W1)
    for role in Role:
        browser = quick_console.as_role(role.value)
        for path in (
            f"{PATH}/auto/drain",
            f"{PATH}/auto/resume",
            f"{PATH}/letters/9-0/drop",
            f"{PATH}/letters/9-0/requeue",
        ):
            assert (await browser.post(path)).status_code in {403, 404}
    assert not (await quick_console.services.pools.overview(["auto"])).tiers["auto"].drained
    assert acts(quick_console) == []
