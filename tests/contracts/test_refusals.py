"""Refusals are kept for a day, by organisation, whatever holds them; a flood is counted instead of written."""

import pytest
import structlog
from redis.exceptions import ConnectionError as RedisConnectionError

from core.clock import ManualClock, SystemClock
from core.meter.keys import cell_key
from core.meter.refusals import (
    KEPT_MS,
    READ_MAX,
    REFUSALS_MAX,
    TALLY_MS,
    MemoryRefusalLog,
    RedisRefusalLog,
    RefusalEvent,
)
from core.redis import connect
from gateway.refusal_buffer import BUFFERED_MAX, REFUSALS_PER_S, RefusalBuffer

CELL = "c0"


def refusal(number: int, organisation: str = "o1", **changes) -> RefusalEvent:
    fields = {
        "request_id": f"c0{number:030x}",
        "organisation": organisation,
        "workspace": "w1",
        "key_id": "k1",
        "route": "/v1/chat/completions",
        "tier": "mistral-tiny",
        "status": 429,
        "code": "1300",
        "rule": "requests_per_minute",
        "scope": "workspace",
        "limit": 60,
        "remaining": 0,
        "at_ms": 1_700_000_000_000 + number,
    }
    return RefusalEvent(**{**fields, **changes})


@pytest.fixture(params=["memory", "redis 6.2", "redis 7"])
async def log(request):
    if request.param == "memory":
        yield MemoryRefusalLog(SystemClock())
        return
    path = request.getfixturevalue("bundled_socket" if request.param == "redis 6.2" else "newer_socket")
    client = connect(f"unix://{path}", 5.0)
    await client.flushall()
    yield RedisRefusalLog(client, CELL, SystemClock())
    await client.aclose()


@pytest.fixture
def buffer(log):
    return RefusalBuffer(log, structlog.get_logger())


async def test_refusals_come_back_youngest_first_and_whole(log):
    await log.append([refusal(1), refusal(2, limit=2**52), refusal(3, "o2", tier="", rule="", left_out=7)])
    await log.append([refusal(4)])
    await log.append([])
    assert await log.read("o1", 0, 10) == [refusal(4), refusal(2, limit=2**52), refusal(1)]
    assert await log.read("o1", 0, 2) == [refusal(4), refusal(2, limit=2**52)]
    assert await log.read("o2", 0, 10) == [refusal(3, "o2", tier="", rule="", left_out=7)]
    assert await log.read("nobody", 0, 10) == []


async def test_what_was_written_before_is_left_out(log):
    await log.append([refusal(1)])
    assert await log.read("o1", SystemClock().now_ms() + 60_000, 10) == []
    assert await log.read("o1", SystemClock().now_ms() - 60_000, 10) == [refusal(1)]


async def test_an_organisation_keeps_its_youngest_and_never_more_than_its_share(log):
    await log.append([refusal(0, "quiet")])
    total = REFUSALS_MAX + 1_000
    await log.append([refusal(number) for number in range(total)])
    assert len(await log.read("o1", 0, 10**6)) == READ_MAX
    assert await log.read("o1", 0, 1) == [refusal(total - 1)]
    assert await log.read("quiet", 0, 10) == [refusal(0, "quiet")]


async def test_streams_are_bounded_in_length_and_age(newer_socket):
    client = connect(f"unix://{newer_socket}", 5.0)
    await client.flushall()
    long_ago = ManualClock(SystemClock().now_ms() - 10)
    await RedisRefusalLog(client, CELL, long_ago).append([refusal(number) for number in range(REFUSALS_MAX + 1_000)])
    key = f"{cell_key(CELL)}:refusals:o1"
    assert REFUSALS_MAX <= await client.xlen(key) <= REFUSALS_MAX + 200  # whole nodes are dropped
    assert 0 < await client.pttl(key) <= KEPT_MS
    a_day_later = RedisRefusalLog(client, CELL, ManualClock(SystemClock().now_ms() + KEPT_MS + 1_000))
    await a_day_later.append([refusal(1)])
    assert await client.xlen(key) <= 200
    assert await a_day_later.read("o1", 0, 10) == []
    await client.aclose()


async def test_reasons_are_tallied_over_all_organisations(log):
    now_ms = SystemClock().now_ms()
    await log.append([refusal(1), refusal(2, "o2", left_out=4), refusal(3, rule="", code="invalid", tier="no-such")])
    await log.append([refusal(4)])
    known = refusal(1)
    assert await log.tally(now_ms - 60_000) == {(known.tier, known.rule): 7, ("", "invalid"): 1}
    assert await log.tally(now_ms + 2 * TALLY_MS) == {}


async def test_memory_forgets_after_a_day():
    clock = ManualClock()
    log = MemoryRefusalLog(clock)
    await log.append([refusal(1)])
    assert len(await log.read("o1", 0, 10)) == 1
    clock.advance(KEPT_MS + 1)
    assert await log.read("o1", 0, 10) == []


async def test_a_flood_is_counted_and_the_number_is_told(log, buffer):
    for number in range(REFUSALS_PER_S + 250):
        buffer.note(refusal(number))
    buffer.note(refusal(1, "o2"))
    await buffer.flush()
    kept = await log.read("o1", 0, READ_MAX)
    assert len(kept) == REFUSALS_PER_S
    assert [event.left_out for event in kept] == [250] + [0] * (REFUSALS_PER_S - 1)
    assert await log.read("o2", 0, 10) == [refusal(1, "o2")]
    await buffer.flush()
    assert len(await log.read("o1", 0, READ_MAX)) == REFUSALS_PER_S


async def test_the_buffer_is_bounded_but_forgets_nobody():
    log = MemoryRefusalLog(ManualClock())
    buffer = RefusalBuffer(log, structlog.get_logger())
    organisations = [f"o{number}" for number in range(BUFFERED_MAX // REFUSALS_PER_S + 10)]
    for number in range(REFUSALS_PER_S):
        for organisation in organisations:
            buffer.note(refusal(number, organisation))
    buffer.note(refusal(1, "late"))
    buffer.note(refusal(2, "late"))
    await buffer.flush()
    found = [await log.read(organisation, 0, READ_MAX) for organisation in organisations]
    assert sum(len(events) for events in found) == BUFFERED_MAX
    assert all(sum(1 + event.left_out for event in events) == REFUSALS_PER_S for events in found)
    assert await log.read("late", 0, 10) == [refusal(1, "late", left_out=1)]


async def test_while_redis_is_away_refusals_wait_within_their_bounds():
    class Away(MemoryRefusalLog):
        away = True

        async def append(self, events):
            if self.away:
                raise RedisConnectionError("gone")
            await super().append(events)

    log = Away(ManualClock())
    buffer = RefusalBuffer(log, structlog.get_logger())
    for second in range(3):
        for number in range(80):
            buffer.note(refusal(100 * second + number))
        await buffer.flush()
    log.away = False
    await buffer.flush()
    kept = await log.read("o1", 0, READ_MAX)
    assert len(kept) == REFUSALS_PER_S
    assert sum(1 + event.left_out for event in kept) == 3 * 80
