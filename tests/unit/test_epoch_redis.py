"""Epochs over real servers: a restart, a lost end of the append-only file, a wipe. What was spent never comes back."""

import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from core.meter.cell import Cell
from core.meter.credit import Epoch, Level
from core.meter.credit_redis import LEVEL, RedisCreditStore
from core.meter.keys import cell_key
from core.queue.base import (
    Admission,
    Admitted,
    Extension,
    Finish,
    Outcome,
    Price,
    QueueSettings,
    Refused,
    RefusedBy,
    TierBounds,
    WorkerSlot,
)
from core.queue.redis import RedisSubmitterQueue, RedisWorkerQueue
from core.redis import connect
from core.wire import CHAT, End, Job, Sampling, Usage
from tests.redis_servers import bundled_redis, newer_redis, redis_server

SETTINGS = QueueSettings("c0", 6_000, {"tiny": TierBounds(100, 0.0)})
PRICES = (Price("p1", 1_000, 1_000, 1_000),)
SLOT = WorkerSlot("w1", "tiny", 4)
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
EPOCH_KEY = f"{cell_key('c0')}:epoch"


@dataclass
class Platform:
    gateway: RedisSubmitterQueue
    workers: RedisWorkerQueue
    funds: RedisCreditStore
    client: Redis

    async def admit(self, number: int) -> Admitted | Refused:
        """10 tokens in, 10 out: 20 nano."""
        seconds, _ = await self.client.time()
        job = Job(
            request_id=f"r{number}",
            submitter="g1",
            organisation="acme",
            workspace="main",
            tier="tiny",
            kind=CHAT,
            deadline_ms=seconds * 1_000 + 60_000,
            prompt_tokens=10,
            cost_expected=20,
            sampling=Sampling(max_tokens=10),
        )
        answer = await self.gateway.admit(Admission(job, "key", 1, PRICES, (), 10, 1, 10**9))
        assert isinstance(answer, Admitted | Refused)
        return answer

    async def refused_by(self, number: int) -> RefusedBy:
        answer = await self.admit(number)
        assert isinstance(answer, Refused), answer
        return answer.by

    async def finish(self, job: Job, completion_tokens: int) -> int:
        end = End(job.request_id, job.attempt, ("stop",), Usage(10, completion_tokens))
        (settled,) = await self.workers.finish([Finish(end, SLOT.worker_id, Outcome.FINISHED)])
        assert settled.accepted
        return settled.end.cost_nano


@contextlib.asynccontextmanager
async def platform(socket: str) -> AsyncIterator[Platform]:
    client = connect(f"unix://{socket}", timeout_s=2.0)
    gateway = RedisSubmitterQueue(client, SETTINGS, "g1")
    workers, funds = RedisWorkerQueue(client, SETTINGS), RedisCreditStore(client, "c0")
    try:
        await gateway.open()
        yield Platform(gateway, workers, funds, client)
    finally:
        with contextlib.suppress(RedisConnectionError):  # the test killed it
            await gateway.close()
        with contextlib.suppress(RedisConnectionError):
            await workers.leave(SLOT)
        await funds.close()
        await client.aclose()


async def reached(ask: Callable[[], Awaitable[Any]]) -> Any:
    """The first answer after its connection was lost: each line that was open is told of the loss once."""
    for _ in range(3):
        with contextlib.suppress(RedisConnectionError):
            return await ask()
    raise AssertionError("the new server was not reached")


def log_of(folder: Path) -> Path:
    """The append-only file that grows: one file in Redis 6, the newest part of several in 7."""
    return max(
        (path for path in folder.rglob("appendonly*.aof") if "base" not in path.name), key=lambda path: path.name
    )


@pytest.mark.parametrize("binary", [bundled_redis, newer_redis])
async def test_what_was_spent_in_a_lost_second_does_not_come_back(binary, tmp_path):
    kept = (*DURABLE, "--dir", str(tmp_path))
    with redis_server(binary(), *kept) as (process, socket):
        async with platform(socket) as before:
            assert await before.funds.open_epoch(1)
            assert await before.funds.give("gift", "acme", 1, 100)
            saved_bytes = log_of(tmp_path).stat().st_size
            for number in range(5):
                assert isinstance(await before.admit(number), Admitted)
            for job in await before.workers.take(SLOT, 4, 0):
                assert await before.finish(job, 10) == 20
            assert await before.funds.level("acme") == Level(1, 0, 20)
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=10)
    with log_of(tmp_path).open("r+b") as log:
        log.truncate(saved_bytes)

    with redis_server(binary(), *kept) as (_, socket):
        async with platform(socket) as after:
            assert await after.funds.epoch() == Epoch(1, is_open=False)
            assert await after.client.hget(f"{cell_key('c0')}:o:acme", "credit") == b"100", "Redis itself has forgotten"
            assert await after.refused_by(10) is RefusedBy.EPOCH
            assert not await after.funds.give("more", "acme", 1, 50)
            assert await after.funds.take_back("return", "acme", 1, 50) == 0
            assert not await after.funds.open_epoch(1)
            assert await after.funds.open_epoch(2)
            assert await after.funds.level("acme") == Level(2, 0, 0)
            assert await after.refused_by(11) is RefusedBy.CREDIT
            assert await after.funds.give("gift", "acme", 2, 100), "the id is remembered, so nothing moves"
            assert await after.funds.level("acme") == Level(2, 0, 0)


async def test_the_same_callers_notice_a_restart_that_lost_nothing(tmp_path):
    kept, address = (*DURABLE, "--dir", str(tmp_path)), tmp_path / "s"
    with redis_server(bundled_redis(), *kept) as (process, socket):
        address.symlink_to(socket)
        async with platform(str(address)) as all_along:
            assert await all_along.funds.open_epoch(1)
            assert await all_along.funds.give("gift", "acme", 1, 100)
            for number in range(2):
                assert isinstance(await all_along.admit(number), Admitted)
            one, two = await all_along.workers.take(SLOT, 2, 0)
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=10)
            with redis_server(bundled_redis(), *kept) as (_, restarted):
                address.unlink()
                address.symlink_to(restarted)
                wish = Extension(one.request_id, one.attempt, SLOT.worker_id, 15)
                (extended,) = await reached(lambda: all_along.workers.extend([wish]))
                assert (extended.covered_tokens, extended.refused_by) == (10, "epoch")
                assert await reached(lambda: all_along.refused_by(2)) is RefusedBy.EPOCH
                assert await all_along.finish(one, 5) == 15
                assert await reached(lambda: all_along.funds.open_epoch(2))
                assert await all_along.refused_by(3) is RefusedBy.CREDIT
                assert await all_along.finish(two, 5) == 15
                assert await all_along.funds.level("acme") == Level(2, 0, 0), "what epoch 1 held is not given to 2"


async def test_after_a_wipe_the_next_epoch_opens_on_connections_that_stay(bundled_socket):
    async with platform(bundled_socket) as wiped:
        await wiped.client.flushall()
        assert await wiped.funds.open_epoch(1)
        assert await wiped.funds.give("gift", "acme", 1, 100)
        assert isinstance(await wiped.admit(0), Admitted)
        await wiped.client.flushall()
        assert await wiped.funds.epoch() == Epoch(0, is_open=False)
        assert await wiped.refused_by(1) is RefusedBy.EPOCH
        assert await wiped.funds.open_epoch(2)
        async with platform(bundled_socket) as newcomer:
            assert await newcomer.refused_by(2) is RefusedBy.CREDIT
        assert await wiped.funds.epoch() == Epoch(2, is_open=True), (
            "a new connection to the same server changes nothing"
        )


async def test_of_two_who_open_one_number_both_find_it_open(bundled_socket):
    async with platform(bundled_socket) as one, platform(bundled_socket) as other:
        await one.client.flushall()
        assert await one.funds.open_epoch(7)
        assert await one.funds.give("gift", "acme", 7, 100)
        assert await other.funds.open_epoch(7)
        assert not await other.funds.open_epoch(6)
        assert await other.funds.level("acme") == Level(7, 100, 0)


async def test_no_script_runs_on_a_connection_whose_guard_failed(bundled_socket):
    client = connect(f"unix://{bundled_socket}", timeout_s=2.0)
    cell = Cell(client, "c0")
    try:
        await client.flushall()
        await client.set(EPOCH_KEY, "not a hash")
        for _ in range(2):
            with pytest.raises(ResponseError, match="WRONGTYPE"):
                await cell.calls.command("SET", "behind the guard", "x")
        assert await client.exists("behind the guard") == 0
        await client.delete(EPOCH_KEY)
        assert await cell.run(LEVEL, "acme") == [0, 0, 0]
    finally:
        await cell.calls.close()
        await client.flushall()
        await client.aclose()


@pytest.mark.parametrize("amount_nano", [0, -1, 2**52 + 1])
async def test_amounts_that_lua_cannot_count_are_refused(bundled_socket, amount_nano):
    async with platform(bundled_socket) as one:
        with pytest.raises(ValueError, match="2\\*\\*52"):
            await one.funds.give("gift", "acme", 1, amount_nano)
        with pytest.raises(ValueError, match="2\\*\\*52"):
            await one.funds.take_back("return", "acme", 1, amount_nano)


async def test_more_than_can_be_counted_exactly_is_refused_as_a_whole(bundled_socket):
    async with platform(bundled_socket) as one:
        await one.client.flushall()
        assert await one.funds.open_epoch(1)
        for number in range(2):
            assert await one.funds.give(f"half-{number}", "acme", 1, 2**52)
        with pytest.raises(ResponseError, match="counted exactly"):
            await one.funds.give("a nano more", "acme", 1, 1)
        assert await one.funds.level("acme") == Level(1, 2**53, 0)
