"""The process around work loops: it says what it waits for, drains, and does not wait for what may hang."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from core.catalog import Tier
from core.clock import ManualClock
from core.errors import SetupError
from core.heartbeat import Beat, Heartbeat
from core.ids import CountingIds
from core.queue.base import QueueSettings, TierBounds
from core.queue.executor import Ended, ExecutorStats
from core.queue.loop import ExecutorEndedError, LoopSettings
from core.queue.memory import MemoryBroker, MemoryWorkerQueue
from core.queue.process import Surroundings, Work, WorkProcess
from core.wire import Job, Piece

WAIT_S = 20


class Idle:
    """Loads when it is allowed to, and makes no step unless it is told to end."""

    def __init__(self) -> None:
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.broken: Exception | None = None
        self.ends = asyncio.Event()
        self.closed = False

    async def start(self) -> None:
        await self.may_load.wait()
        if self.broken is not None:
            raise self.broken

    def submit(self, job: Job) -> None:
        raise AssertionError(f"nobody submits here: {job}")

    def cover(self, request_id: str, output_tokens: int) -> None: ...

    def abort(self, request_id: str) -> None: ...

    async def steps(self) -> AsyncIterator[list[Piece | Ended]]:
        await self.ends.wait()
        for nothing in ():
            yield nothing

    def stats(self) -> ExecutorStats:
        return ExecutorStats(0, 0.0)

    async def close(self) -> None:
        self.closed = True


def process(path: Path, executor: Idle) -> WorkProcess:
    tiers = [
        Tier(name=name, engine="echo", weights="none", context_tokens=64, price={"input": "0.10"}) for name in "ab"
    ]
    clock = ManualClock()
    broker = MemoryBroker(QueueSettings("c0", 6_000, {name: TierBounds(10, 0.0) for name in "ab"}), clock)
    around = Surroundings(
        MemoryWorkerQueue(broker),
        LoopSettings(take_wait_s=0.01, drain_s=1.0),
        Heartbeat(path),
        clock,
        CountingIds(),
        structlog.stdlib.get_logger(),
    )
    return WorkProcess(Work(tiers, lambda _tier, _clock, _log: executor), around)


async def until(process: WorkProcess, expected: Beat) -> None:
    async with asyncio.timeout(WAIT_S):
        while process.standing() != expected:  # noqa: ASYNC110 - as a supervisor does, which has no event
            await asyncio.sleep(0.005)


async def test_it_loads_works_and_drains(tmp_path):
    executor = Idle()
    executor.may_load.clear()
    made = process(tmp_path / "beat", executor)
    assert not made.standing().ready
    running = asyncio.create_task(made.run())
    await until(made, Beat(ready=False, note="loading a"))
    assert json.loads((tmp_path / "beat").read_text())["ready"] is False
    executor.may_load.set()
    await until(made, Beat(ready=True))
    made.stop()
    assert made.standing() == Beat(ready=False, note="draining")
    assert await asyncio.wait_for(running, WAIT_S) is True
    assert executor.closed


async def test_stopped_while_it_loads_it_waits_for_nothing(tmp_path):
    executor = Idle()
    executor.may_load.clear()
    made = process(tmp_path / "beat", executor)
    running = asyncio.create_task(made.run())
    await until(made, Beat(ready=False, note="loading a"))
    made.stop()
    assert await asyncio.wait_for(running, WAIT_S) is False
    assert not executor.closed


async def test_what_must_be_put_right_first_is_told(tmp_path):
    executor = Idle()
    executor.broken = SetupError("no weights")
    with pytest.raises(SetupError, match="no weights"):
        await asyncio.wait_for(process(tmp_path / "beat", executor).run(), WAIT_S)
    assert executor.closed


async def test_a_broken_loop_ends_the_process_and_closes_nothing(tmp_path):
    executor = Idle()
    made = process(tmp_path / "beat", executor)
    running = asyncio.create_task(made.run())
    await until(made, Beat(ready=True))
    executor.ends.set()
    with pytest.raises(BaseExceptionGroup) as caught:
        await asyncio.wait_for(running, WAIT_S)
    assert caught.value.subgroup(ExecutorEndedError) is not None
    assert not executor.closed


async def test_a_full_disk_under_the_heartbeat_does_not_stop_the_work(tmp_path):
    made = process(tmp_path / "no folder" / "beat", Idle())
    running = asyncio.create_task(made.run())
    await until(made, Beat(ready=True))
    made.stop()
    assert await asyncio.wait_for(running, WAIT_S) is True
