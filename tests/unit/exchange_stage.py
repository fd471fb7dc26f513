"""An exchange over the memory queue, with a clock and a worker that a test moves by hand."""

import asyncio
import contextlib
import itertools

import structlog

from core.clock import ManualClock
from core.queue.base import Admission, Finish, Outcome, Price, QueueSettings, TierBounds, WorkerSlot
from core.queue.memory import (
    MemoryBroker,
    MemoryCreditStore,
    MemoryQueueKeeper,
    MemorySubmitterQueue,
    MemoryWorkerQueue,
)
from core.wire import CHAT, EMBED, End, Job, Piece, Sampling, Usage
from gateway.exchange import Exchange, ExchangeSettings

LEASE_MS = 6_000
SLOT = WorkerSlot("worker", "tiny", 1_000)
PRICE = Price("launch", 140_000, 140_000, 420_000)
NUMBERS = itertools.count(1)


def settings(**changes):
    """A real lease and real clocks; what is waited for in real time is short."""
    fast = {"lease_ms": LEASE_MS, "tick_ms": 2, "receive_wait_ms": 5, "away_retry_ms": 2, "away_retry_ms_max": 5}
    return ExchangeSettings(**(fast | {"reap_every_ms": 3_600_000} | changes))


def chat(*, streamed=True, n=1, generation=1, rules=(), claim=None, key_id="key"):
    job = Job(
        request_id=f"c0{next(NUMBERS):030x}",
        submitter="gateway",
        organisation="org",
        workspace="w",
        tier="tiny",
        kind=CHAT if n else EMBED,
        deadline_ms=ManualClock().now_ms() + 900_000,
        prompt_tokens=10,
        cost_expected=20,
        streamed=streamed,
        sampling=Sampling(max_tokens=500, n=n) if n else None,
        keep_answer=claim is not None,
    )
    return Admission(job, key_id, generation, (PRICE,), tuple(rules), 500, 1, 120_000, claim)


def piece(job, first_index, text, tokens=1, choice=0):
    return Piece(job.request_id, job.attempt, choice, first_index, tuple(range(tokens)), text)


def end(job, completion_tokens, reasons=("stop",)):
    return End(job.request_id, job.attempt, reasons, Usage(job.prompt_tokens, completion_tokens))


async def last(events):
    said = None
    async for event in events:
        said = event
    return said


class Stage:
    submitter = "gateway"

    def __init__(self, exchange_settings=None, *, log=None, wrap=lambda queue: queue):
        self.clock = ManualClock()
        bounds = {"tiny": TierBounds(1_000, 0.0)}
        self.broker = MemoryBroker(QueueSettings("c0", LEASE_MS, bounds), self.clock)
        self.memory_queue = MemorySubmitterQueue(self.broker, self.submitter)
        self.queue = wrap(self.memory_queue)
        self.workers = MemoryWorkerQueue(self.broker)
        self.keeper = MemoryQueueKeeper(self.broker)
        quiet = structlog.wrap_logger(structlog.ReturnLogger())
        self.exchange = Exchange(self.queue, self.keeper, exchange_settings or settings(), self.clock, log or quiet)

    @contextlib.asynccontextmanager
    async def running(self):
        await self.memory_queue.open()
        credit = MemoryCreditStore(self.broker)
        assert await credit.open_epoch(1)
        assert await credit.give("gift", "org", 1, 10**15)
        runner = asyncio.create_task(self.exchange.run())
        try:
            yield self
        finally:
            runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await runner
            await self.exchange.close()

    async def begun(self, admission):
        """Admitted, and taken by the worker."""
        conversation = await self.exchange.ask(admission)
        assert conversation.admitted.request_id == conversation.request_id
        return conversation, await self.take()

    async def take(self):
        (job,) = await self.workers.take(SLOT, 1, 5.0)
        return job

    async def send(self, *events):
        assert await self.workers.send({self.submitter: events}) == frozenset()

    async def finish(self, ending, outcome=Outcome.FINISHED, *, say=True):
        (settlement,) = await self.workers.finish([Finish(ending, SLOT.worker_id, outcome)])
        assert settlement.accepted
        if say:
            await self.send(settlement.end)

    async def settled_down(self):
        """Every task has come to where it waits: the reader has read, the clocks have been looked at."""
        self.exchange.tick()
        for _ in range(50):
            await asyncio.sleep(0)

    async def pass_time(self, *steps_ms):
        for ms in steps_ms:
            await self.settled_down()
            self.clock.advance(ms)
            await self.settled_down()

    async def lease_runs_out(self):
        """In steps shorter than half a lease, else the reaper believes that everybody was away."""
        for _ in range(6):
            await self.keeper.reap()
            await self.pass_time(LEASE_MS // 4)

    async def until(self, true):
        """Poll, within the test's own time limit."""
        while not true():  # noqa: ASYNC110 - what is waited for rings no bell
            await asyncio.sleep(0.001)

    async def reservations(self):
        return (await self.keeper.stats(["tiny"])).reservations_open

    def usage(self, request):
        (event,) = (event for event in self.broker.usage.values() if event.request_id == request.request_id)
        return event
