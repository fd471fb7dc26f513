"""Both logs of chosen experts, and the way into SQL that starts there."""

import contextlib

import pytest
import structlog
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from core import experts
from core.clock import ManualClock
from core.experts import BEGINNING, ExpertCounts, ExpertSample, MemoryExpertLog, RedisExpertLog, entry_place
from tests.redis_servers import bundled_socket
from workers.experts import WAITING_MAX, ExpertReporter

__all__ = ["bundled_socket"]


def sample(number=1, workspace="w1", tier="mistral-small"):
    return ExpertSample(tier, "o1", workspace, ExpertCounts((0, 3), ((number, 0, 2), (0, 1, number + 1))))


@pytest.fixture(params=["memory", "redis"])
async def log(request):
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "memory":
            made = MemoryExpertLog(ManualClock())
        else:
            client = Redis(unix_socket_path=request.getfixturevalue("bundled_socket"))
            await client.flushall()
            made = RedisExpertLog(client, "c0")
        stack.push_async_callback(made.close)
        yield made


async def test_samples_come_back_in_order_after_any_id_and_can_be_forgotten(log):
    assert await log.read(BEGINNING, 10) == []
    await log.append([sample(1), sample(2)])
    await log.append([sample(3)])
    found = await log.read(BEGINNING, 10)
    assert [one for _, one in found] == [sample(1), sample(2), sample(3)]
    ids = [entry_id for entry_id, _ in found]
    assert sorted(ids, key=entry_place) == ids
    assert len(set(ids)) == 3
    assert await log.read(ids[0], 1) == found[1:2]
    await log.forget(ids[1])
    await log.forget(ids[0])
    assert await log.read(BEGINNING, 10) == found[2:]


async def test_the_log_is_bounded_in_samples_and_each_sample_in_bytes(log, monkeypatch):
    monkeypatch.setattr(experts, "ENTRIES_MAX", 100)
    huge = ExpertSample("t", "o", "w", ExpertCounts((0,), ((2**40,) * 8_000,)))
    await log.append([huge])
    assert await log.read(BEGINNING, 10) == []
    for start in range(0, 1_000, 100):
        await log.append([sample(start + number) for number in range(100)])
    found = await log.read(BEGINNING, 2_000)
    assert 100 <= len(found) <= 300  # Redis trims whole nodes
    assert found[-1][1] == sample(999)


class Failing:
    def __init__(self):
        self.asked = []

    async def append(self, samples):
        self.asked.append(list(samples))
        if len(self.asked) == 1:
            raise RedisConnectionError("away")

    async def close(self):
        self.closed = True


async def test_what_cannot_be_sent_is_lost_and_what_waits_is_bounded():
    log = Failing()
    reporter = ExpertReporter(log, 1, structlog.get_logger())
    reporter.put(sample(1))
    await reporter._sending
    for number in range(WAITING_MAX + 5):
        reporter.put(sample(number))
    await reporter.close()
    assert log.asked == [[sample(1)], [sample(number) for number in range(5, WAITING_MAX + 5)]]
    assert log.closed


@pytest.mark.parametrize(("one_in", "least", "most"), [(0, 0, 0), (1, 4_000, 4_000), (16, 200, 300)])
def test_one_of_so_many_requests_is_counted_and_always_the_same(one_in, least, most):
    reporter = ExpertReporter(Failing(), one_in, structlog.get_logger())
    wanted = [name for name in map(str, range(4_000)) if reporter.wants(name)]
    assert least <= len(wanted) <= most
    assert wanted == [name for name in map(str, range(4_000)) if reporter.wants(name)]
