"""The worker as a process over a real Redis, with the echo engine; the test is the gateway."""

import asyncio
import contextlib
import os
import signal
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor

from core.clock import SystemClock
from core.heartbeat import read_beat
from core.ids import SystemIds
from core.meter.credit_redis import RedisCreditStore
from core.queue.base import Admission, Admitted, Price, QueueSettings, RequestState, TierBounds
from core.queue.redis import RedisQueueKeeper, RedisSubmitterQueue
from core.redis import connect
from core.tokenizer_files import tokenizer_file
from core.wire import CHAT, End, Job, Lost, Piece, Sampling
from tests.redis_servers import bundled_redis, redis_server

LEASE_MS = 1_000
WAIT_S = 40
MODEL = SentencePieceProcessor(model_file=str(tokenizer_file("v1")))
CONFIG = """
[plans.development]
requests_per_minute = 1
tokens_per_minute = 1
concurrency = 1
credit = "1"
"""
TIER = """
[tiers.{name}]
engine = "{engine}"
weights = "demo:none"
context_tokens = 4096
slots = 64
price = {{ input = "0" }}
echo = {{ tokens_per_s = {pace}, answer_tokens = 30, faults = true }}
"""
FAST, SLOW = "fast", "slow"
COMMAND = (sys.executable, "-P", "-m", "cli.run", "worker")


@pytest.fixture
def socket():
    with redis_server(bundled_redis()) as (_, path):
        yield path


@pytest.fixture
def environment(socket, tmp_path):
    config = tmp_path / "tramontane.toml"
    tiers = TIER.format(name=FAST, engine="echo", pace=0) + TIER.format(name=SLOW, engine="echo", pace=60)
    config.write_text(CONFIG + tiers)
    return {
        "PATH": os.environ["PATH"],
        "TRAMONTANE_CONFIG": str(config),
        "TRAMONTANE_HOME": str(tmp_path),
        "TRAMONTANE_REDIS_URL": f"unix://{socket}",
        "TRAMONTANE_LEASE_MS": str(LEASE_MS),
        "TRAMONTANE_HEARTBEAT_FILE": str(tmp_path / "beat"),
    }


def memory_map(process):
    return Path(f"/proc/{process.pid}/maps").read_text()


def start(environment):
    return asyncio.create_subprocess_exec(*COMMAND, env=environment)


async def end(process):
    if process.returncode is None:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def worker(environment):
    """A worker process that is ready."""
    beat = Path(environment["TRAMONTANE_HEARTBEAT_FILE"])
    process = await start(environment)
    try:
        async with asyncio.timeout(WAIT_S):
            while not ((found := read_beat(beat)) and found.ready):
                assert process.returncode is None
                await asyncio.sleep(0.05)
        yield process
    finally:
        await end(process)


@contextlib.asynccontextmanager
async def restarted(environment, codes):
    """A worker process that is started again whenever it dies."""

    async def keep():
        while True:
            process = await start(environment)
            try:
                codes.append(await process.wait())
            finally:
                await end(process)

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


class Gateway:
    def __init__(self, client) -> None:
        bounds = TierBounds(queue_jobs_max=1_000, pool_reserve=0.0)
        settings = QueueSettings("c0", LEASE_MS, {FAST: bounds, SLOW: bounds})
        self.keeper = RedisQueueKeeper(client, settings)
        self._queue = RedisSubmitterQueue(client, settings, "g1")
        self._credit = RedisCreditStore(client, "c0")
        self._ids = SystemIds(SystemClock())
        self.pieces = defaultdict(list)
        self.ends = {}
        self.lost = []
        self.asked = set()

    async def open(self):
        await self._queue.open()
        assert await self._credit.open_epoch(1)

    async def ask(self, tier, text="hello", **sampling):
        prompt = tuple(MODEL.encode(f"[INST] {text} [/INST]"))
        job = Job(
            request_id=self._ids.request_id("c0"),
            submitter="g1",
            organisation="o",
            workspace="w",
            tier=tier,
            kind=CHAT,
            deadline_ms=SystemClock().now_ms() + 600_000,
            prompt_tokens=len(prompt),
            cost_expected=1,
            prompt_ids=prompt,
            sampling=Sampling(**({"max_tokens": 1_000} | sampling)),
        )
        admission = Admission(job, "k", 0, (Price("1", 0, 0, 0),), (), 1_000, 1, 600_000)
        assert isinstance(await self._queue.admit(admission), Admitted)
        self.asked.add(job.request_id)
        return job.request_id

    async def until(self, true):
        """Listen as a gateway does; what was lost runs again if nothing of it has come."""
        async with asyncio.timeout(WAIT_S):
            while not true():
                events = await self._queue.receive(0.2)
                for event in events:
                    await self.hear(event)
                await self.keeper.reap()
                if not events:  # silence: a worker may have died between settling and telling
                    for request_id in self.asked - set(self.ends):
                        self.look(request_id, await self._queue.standing(request_id))

    async def hear(self, event):
        match event:
            case Piece():
                self.pieces[event.request_id].append(event)
            case End():
                self.ends[event.request_id] = event
            case Lost():
                self.lost.append(event.request_id)
                if event.request_id not in self.pieces:
                    self.look(event.request_id, await self._queue.retry(event.request_id, event.attempt))

    def look(self, request_id, standing):
        if standing.state is RequestState.SETTLED:
            self.ends.setdefault(request_id, standing.end)

    def count(self, request_id):
        return sum(len(piece.token_ids) for piece in self.pieces[request_id])

    async def close(self):
        await self._credit.close()
        await self._queue.close()
        await self.keeper.close()


@pytest.fixture
async def gateway(socket):
    client = connect(f"unix://{socket}", 2.0)
    gateway = Gateway(client)
    await gateway.open()
    yield gateway
    await gateway.close()
    await client.aclose()


async def test_a_worker_serves_its_tiers_and_drains(environment, gateway):
    async with worker(environment) as process:
        asked = [await gateway.ask(FAST, f"number {i}", n=1 + i % 2) for i in range(40)]
        slow = await gateway.ask(SLOW)
        await gateway.until(lambda: len(gateway.ends) == 40 and gateway.pieces[slow])
        assert all(gateway.ends[one].usage.completion_tokens == gateway.count(one) >= 30 for one in asked)
        assert "libtorch" not in memory_map(process)
        process.send_signal(signal.SIGTERM)
        await gateway.until(lambda: slow in gateway.ends)
        assert gateway.ends[slow].usage.completion_tokens == gateway.count(slow) == 30
        assert await asyncio.wait_for(process.wait(), WAIT_S) == 0
        stats = await gateway.keeper.stats([FAST, SLOW])
        assert [tier.workers for tier in stats.tiers.values()] == [0, 0]
        assert stats.reservations_open == 0
        assert gateway.lost == []


async def test_a_deadly_prompt_is_tried_three_times_and_then_no_more(environment, gateway):
    codes = []
    async with restarted(environment, codes):
        begun = await gateway.ask(SLOW, "[[echo:tokens=1000]]")
        await gateway.until(lambda: gateway.pieces[begun])
        deadly = await gateway.ask(SLOW, "[[echo:die=0]]")
        await gateway.until(lambda: {deadly, begun} <= set(gateway.ends))
        others = [await gateway.ask(tier) for tier in (FAST, SLOW) for _ in range(5)]
        await gateway.until(lambda: set(others) <= set(gateway.ends))
    assert codes == [70, 70, 70]
    assert gateway.lost.count(deadly) == 3
    assert gateway.lost.count(begun) == 1
    for one in (deadly, begun):
        end = gateway.ends[one]
        assert end.error
        assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (0, 0)
    for one in others:
        assert gateway.ends[one].usage.completion_tokens == gateway.count(one) == 30


async def test_what_had_not_begun_when_its_worker_was_killed_is_answered_by_the_next(environment, gateway):
    async with worker(environment) as process:
        begun = await gateway.ask(SLOW, "[[echo:tokens=1000]]")
        await gateway.until(lambda: gateway.pieces[begun])
        process.kill()
        await process.wait()
    waiting = [await gateway.ask(tier) for tier in (FAST, SLOW) for _ in range(10)]
    async with worker(environment):
        await gateway.until(lambda: {begun, *waiting} <= set(gateway.ends))
    assert gateway.lost == [begun]
    for one in waiting:
        assert gateway.ends[one].usage.completion_tokens == gateway.count(one) == 30


@pytest.mark.parametrize(("engine", "says"), [("vllm", "no weights"), ("transformers", "no weights")])
async def test_what_cannot_start_says_so_in_one_line(environment, engine, says):
    environment = environment | {"TRAMONTANE_ENGINE": engine}
    process = await asyncio.create_subprocess_exec(*COMMAND, env=environment, stderr=asyncio.subprocess.PIPE)
    _, errors = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert process.returncode == 1
    assert says in errors.decode().splitlines()[-1]
    assert b"Traceback" not in errors
