"""One cell as a contract test sees it: both sides, the keeper, the usage source, and a clock that stands still."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

from redis.asyncio import Redis

from core.clock import ManualClock
from core.meter.cell import GUARD
from core.meter.credit import CounterStore, CreditStore
from core.meter.credit_redis import RedisCounterStore, RedisCreditStore
from core.meter.keys import cell_key
from core.meter.usage import UsageEvent, UsageSource
from core.meter.usage_redis import RedisUsageSource
from core.pools import Pools
from core.pools_redis import RedisPools
from core.queue.base import (
    Admission,
    Admitted,
    Finish,
    Outcome,
    Price,
    QueueKeeper,
    QueueSettings,
    Refused,
    Repeated,
    Settlement,
    SubmitterQueue,
    TierBounds,
    WorkerQueue,
    WorkerSlot,
)
from core.queue.memory import (
    MemoryBroker,
    MemoryCounterStore,
    MemoryCreditStore,
    MemoryPools,
    MemoryQueueKeeper,
    MemorySubmitterQueue,
    MemoryUsageSource,
    MemoryWorkerQueue,
)
from core.queue.redis import RedisQueueKeeper, RedisSubmitterQueue, RedisWorkerQueue
from core.queue.rules import Rule, RuleKind
from core.wire import CHAT, INTERACTIVE, End, Job, Sampling, Usage

START_MS = 1_700_000_000_000
LEASE_MS = 6_000
REAP_EVERY_MS = 1_000
RICH_NANO = 10**15
NANO_PER_TOKEN = Price(version="p1", input_nano=1_000, cached_nano=100, output_nano=2_000)
FILLER = UsageEvent("", "", "", "", "", "", "", 1, False, 0, 0, 0, 0, 0, "", 0, 0, 0, 0)
FILL = "for _ = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], '*', 'u', '') end"
NO_TIME = 10**9  # ms: a caller who would wait for ever
COUNTED_MAX = 1_000
FAR = 800_000  # ms until a job's deadline
SETTINGS = QueueSettings(
    cell="c0",
    lease_ms=LEASE_MS,
    tiers={
        "tiny": TierBounds(queue_jobs_max=2_000, pool_reserve=0.25),
        "open": TierBounds(queue_jobs_max=2_000, pool_reserve=0.0),
        "short": TierBounds(queue_jobs_max=3, pool_reserve=0.0),
    },
)


@dataclass
class World:
    """`gateway` is the submitter g1, its stream open; epoch 1 is open, without credit. `restart` makes a new run of
    Redis that has lost nothing, on which no epoch is open. `forget(ms)` lets that much time pass also for what the
    implementation keeps by its own clock (Redis: key expiry). `fill_usage(n)` adds n events that nobody will read.
    """

    clock: ManualClock
    gateway: SubmitterQueue
    workers: WorkerQueue
    keeper: QueueKeeper
    funds: CreditStore
    counters: CounterStore
    pools: Pools
    restart: Callable[[], Awaitable[None]]
    usage: UsageSource
    new_usage_source: Callable[[], UsageSource]
    new_submitter: Callable[[str], Awaitable[SubmitterQueue]]
    age_keys: Callable[[int], Awaitable[None]]
    fill_usage: Callable[[int], Awaitable[None]]
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    async def forget(self, ms: int) -> None:
        self.clock.advance(ms)
        await self.age_keys(ms)

    def job(self, organisation: str = "acme", **changes: object) -> Job:
        """10 prompt tokens, up to 10 more."""
        number = next(self.numbers)
        plain = Job(
            request_id=f"c0{number:030x}",
            submitter="g1",
            organisation=organisation,
            workspace=f"{organisation}-main",
            tier="tiny",
            kind=CHAT,
            deadline_ms=self.clock.now_ms() + FAR,
            prompt_tokens=10,
            cost_expected=20,
            band=INTERACTIVE,
            prompt_ids=tuple(range(10)),
            sampling=Sampling(max_tokens=10),
        )
        return replace(plain, **changes)

    def admission(self, job: Job, **changes: object) -> Admission:
        plain = Admission(
            job=job,
            key_id="key1",
            generation=1,
            prices=(NANO_PER_TOKEN,),
            rules=(),
            output_reserved=10,
            weight=1,
            queue_wait_ms_max=NO_TIME,
        )
        return replace(plain, **changes)

    async def try_admit(self, job: Job, **changes: object) -> Admitted | Refused | Repeated:
        return await self.gateway.admit(self.admission(job, **changes))

    async def fund(self, organisation: str = "acme", amount_nano: int = RICH_NANO) -> None:
        """Its first credit in epoch 1; any later amount is the same gift again."""
        assert await self.funds.give(f"fund-{organisation}", organisation, 1, amount_nano)

    async def must_admit(self, job: Job, **changes: object) -> Admitted:
        answer = await self.try_admit(job, **changes)
        assert isinstance(answer, Admitted), answer
        return answer

    async def must_refuse(self, job: Job, **changes: object) -> Refused:
        answer = await self.try_admit(job, **changes)
        assert isinstance(answer, Refused), answer
        return answer

    async def admit(self, organisation: str = "acme", *, weight: int = 1, **changes: object) -> Job:
        """A job that must be admitted; its organisation gets credit if it has none."""
        job = self.job(organisation, **changes)
        await self.fund(organisation)
        await self.must_admit(job, weight=weight)
        return job

    async def take(self, slot: WorkerSlot, room: int = 1) -> list[Job]:
        return await self.workers.take(slot, room, 0)

    async def finish(
        self, slot: WorkerSlot, job: Job, usage: Usage | None = None, outcome: Outcome = Outcome.FINISHED
    ) -> Settlement:
        counted = Usage(job.prompt_tokens, 5) if usage is None else usage
        end = End(job.request_id, job.attempt, ("stop",), counted)
        (settlement,) = await self.workers.finish([Finish(end, slot.worker_id, outcome, first_token_ms=7)])
        return settlement

    async def pass_time(self, ms: int, *alive: WorkerSlot) -> int:
        """The reaper runs every second, as in production, and the workers named renew. Answers the losses."""
        lost = 0
        for step_ms in (*([REAP_EVERY_MS] * (ms // REAP_EVERY_MS)), ms % REAP_EVERY_MS):
            self.clock.advance(step_ms)
            for slot in alive:
                assert (await self.workers.renew(slot)).held
            lost += await self.keeper.reap()
        return lost

    async def lose(self, *alive: WorkerSlot) -> int:
        """Every worker that is not named falls silent for longer than a lease."""
        await self.keeper.reap()
        return await self.pass_time(LEASE_MS + REAP_EVERY_MS, *alive)

    async def open_reservations(self) -> int:
        return (await self.keeper.stats(list(SETTINGS.tiers))).reservations_open

    async def credit(self, organisation: str = "acme") -> int:
        """What is free."""
        return (await self.funds.level(organisation)).available_nano

    async def open_in_scope(self, rule: Rule) -> int:
        """How many open records a concurrency rule counts."""
        assert rule.kind is RuleKind.CONCURRENCY
        (state,) = await self.counters.states([replace(rule, limit=COUNTED_MAX)])
        return COUNTED_MAX - state.remaining

    async def usage_events(self) -> list[UsageEvent]:
        """Everything that is new, acknowledged."""
        out: list[UsageEvent] = []
        while batch := await self.usage.read(100, 0):
            await self.usage.acknowledge([event_id for event_id, _ in batch])
            out += [event for _, event in batch]
        return out


@contextlib.asynccontextmanager
async def memory_world(epoch: int = 1) -> AsyncIterator[World]:
    clock = ManualClock(START_MS)
    broker = MemoryBroker(SETTINGS, clock)

    async def new_submitter(name: str) -> SubmitterQueue:
        submitter = MemorySubmitterQueue(broker, name)
        await submitter.open()
        return submitter

    async def age_keys(ms: int) -> None:
        """The broker knows no other clock."""

    async def fill_usage(count: int) -> None:
        start = len(broker.usage)
        broker.usage |= {f"filled-{start + number}": FILLER for number in range(count)}

    async def restart() -> None:
        broker.restart()

    funds = MemoryCreditStore(broker)
    assert epoch == 0 or await funds.open_epoch(epoch)
    yield World(
        clock=clock,
        gateway=await new_submitter("g1"),
        workers=MemoryWorkerQueue(broker),
        keeper=MemoryQueueKeeper(broker),
        funds=funds,
        counters=MemoryCounterStore(broker, clock),
        pools=MemoryPools(broker, clock),
        restart=restart,
        usage=MemoryUsageSource(broker),
        new_usage_source=lambda: MemoryUsageSource(broker),
        new_submitter=new_submitter,
        age_keys=age_keys,
        fill_usage=fill_usage,
    )


@contextlib.asynccontextmanager
async def redis_world(socket: str, epoch: int = 1) -> AsyncIterator[World]:
    """`epoch` 0: none was ever opened."""
    clock = ManualClock(START_MS)
    async with Redis(unix_socket_path=socket) as client, contextlib.AsyncExitStack() as stack:
        await client.flushall()

        async def new_submitter(name: str) -> SubmitterQueue:
            submitter = RedisSubmitterQueue(client, SETTINGS, name, clock)
            stack.push_async_callback(submitter.close)
            await submitter.open()
            return submitter

        async def age_keys(ms: int) -> None:
            async for key in client.scan_iter(count=1_000):
                left_ms = await client.pttl(key)
                if left_ms > 0:
                    await client.pexpire(key, left_ms - ms)  # at once, if that is in the past

        async def fill_usage(count: int) -> None:
            await client.eval(FILL, 1, f"{cell_key(SETTINGS.cell)}:usage", count)

        async def restart() -> None:
            """As if the epoch had been opened on another server than the one that the next connection finds."""
            key = cell_key(SETTINGS.cell)
            await client.hset(f"{key}:epoch", mapping={"run": "another", "seen": "another"})
            await client.eval(GUARD.source, 1, key, "", (await client.info("server"))["run_id"])

        workers, keeper = RedisWorkerQueue(client, SETTINGS, clock), RedisQueueKeeper(client, SETTINGS, clock)
        funds, counters = (
            RedisCreditStore(client, SETTINGS.cell, clock),
            RedisCounterStore(client, SETTINGS.cell, clock),
        )
        pools = RedisPools(client, SETTINGS, clock)
        for each in (keeper, funds, counters, pools):
            stack.push_async_callback(each.close)
        assert epoch == 0 or await funds.open_epoch(epoch)
        yield World(
            clock=clock,
            gateway=await new_submitter("g1"),
            workers=workers,
            keeper=keeper,
            funds=funds,
            counters=counters,
            pools=pools,
            restart=restart,
            usage=RedisUsageSource(client, SETTINGS.cell, "collector-1"),
            new_usage_source=lambda: RedisUsageSource(client, SETTINGS.cell, "collector-1"),
            new_submitter=new_submitter,
            age_keys=age_keys,
            fill_usage=fill_usage,
        )


WorldMaker = Callable[..., contextlib.AbstractAsyncContextManager[World]]
