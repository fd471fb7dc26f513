"""A gateway on a real socket, over the queue in memory; its workers are played by the test."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from tempfile import gettempdir

import httpx
import structlog

from core.catalog import Catalog
from core.clock import SystemClock
from core.db import Database as SqlDatabase
from core.db import connect_database
from core.errors import UNAUTHORIZED, UNAVAILABLE, PlatformError
from core.ids import SystemIds
from core.meter.refusals import MemoryRefusalLog
from core.queue.base import (
    Admission,
    Finish,
    Outcome,
    Price,
    Refused,
    WorkerSlot,
)
from core.queue.memory import (
    MemoryBroker,
    MemoryCounterStore,
    MemoryCreditStore,
    MemoryPools,
    MemoryQueueKeeper,
    MemorySubmitterQueue,
    MemoryWorkerQueue,
)
from core.queue.rules import Rule, RuleKind
from core.queue.settings import queue_settings
from core.text_counter import WordCounter
from core.tokens import ChatTokenizer
from core.wire import Answer, End, Job, Piece, TokenLogprob, Usage
from gateway.accounts.principals import SqlPrincipals
from gateway.admission import AdmissionSettings, Admitter
from gateway.exchange import Exchange, ExchangeSettings
from gateway.gate import Gate
from gateway.main import GatewayServer, bind
from gateway.metrics import GatewayMetrics
from gateway.principal import Principal, Standing
from gateway.refusal_buffer import RefusalBuffer
from gateway.refusals import refusal_error
from gateway.services import Lifecycle, Services
from gateway.settings import GatewaySettings
from gateway.watch import Watch
from tests.accounts_world import PEPPERS

KEY = "test-key"
AUTH = {"authorization": f"Bearer {KEY}"}
MESSAGES = [{"role": "user", "content": "Hello"}]
CHAT = "/v1/chat/completions"
WAIT_S = 10
CATALOG = Catalog.model_validate(
    {
        "plans": {
            "development": {"requests_per_minute": 1, "tokens_per_minute": 1, "concurrency": 1, "credit": "1"},
        },
        "tiers": (
            {
                "name": "auto",
                "engine": "echo",
                "weights": "none",
                "context_tokens": 512,
                "aliases": ("auto-latest",),
                "capabilities": ("completion_chat",),
                "price": {"input": "0.14", "output": "0.42"},
            },
            {"name": "manual", "engine": "echo", "weights": "none", "context_tokens": 512, "price": {"input": "1"}},
            {
                "name": "code",
                "engine": "echo",
                "weights": "none",
                "context_tokens": 512,
                "capabilities": ("completion_fim",),
                "price": {"input": "1", "output": "2"},
            },
            {
                "name": "embed",
                "kind": "embed",
                "engine": "hash",
                "weights": "none",
                "context_tokens": 16,
                "dimensions": 4,
                "price": {"input": "0.10"},
            },
        ),
    }
)
VECTOR = bytes.fromhex("0000803f000000c00000003f00000000")  # 1, -2, 0.5, 0
ORGANISATION = "o" * 32
PRICES = {tier.name: (Price("launch", *tier.price.nano_per_thousand()),) for tier in CATALOG.tiers}


def principal(generation: int = 1, requests_per_minute: int = 10**6, scopes: frozenset[str] = frozenset({"inference"})):
    rules = (
        Rule(RuleKind.REQUESTS_PER_MINUTE, "organisation", ORGANISATION, requests_per_minute),
        Rule(RuleKind.TOKENS_PER_MINUTE, "organisation", ORGANISATION, 10**9),
        Rule(RuleKind.CONCURRENCY, "organisation", ORGANISATION, 1_000),
    )
    return Principal("key-1", "workspace-1", ORGANISATION, scopes, generation, 1, rules, PRICES)


class FixedPrincipals:
    def __init__(self) -> None:
        self.known = {KEY: principal()}
        self.after_forget: dict[str, Principal] = {}
        self.forgotten: list[str] = []
        self.valid_keys: dict[str, Standing] = {}

    async def by_key(self, secret: str) -> Principal:
        if secret not in self.known:
            raise PlatformError(UNAUTHORIZED, "no such key")
        return self.known[secret]

    def forget(self, secret: str) -> None:
        self.forgotten.append(secret)
        self.known.update(self.after_forget)

    async def valid(self, key_id: str) -> Standing | None:
        return self.valid_keys.get(key_id)


@dataclass(frozen=True)
class SqlAccounts:
    """A migrated database with prices in it."""

    database: SqlDatabase

    def principals(self, clock: SystemClock) -> SqlPrincipals:
        return SqlPrincipals(self.database, PEPPERS, clock, [tier.name for tier in CATALOG.tiers])


def never_opened() -> SqlDatabase:
    return connect_database(f"sqlite:///{gettempdir()}/never-opened.sqlite3")


class NoFunding:
    """Redis was given everything at the start, and there is no more."""

    async def lend(self, _admission: Admission, refused: Refused) -> None:
        raise refusal_error(refused)

    async def seed(self, _admission: Admission) -> None:
        raise PlatformError(UNAVAILABLE, "Nothing is known of any window.")

    async def open_epoch(self) -> None:
        raise PlatformError(UNAVAILABLE, "There is no other epoch.")

    def spent(self, _admission: Admission, _credit_left_nano: int) -> None:
        """Nobody gives more."""


@dataclass
class Actor:
    """A worker that does what the test says."""

    queue: MemoryWorkerQueue
    slot: WorkerSlot
    sent: dict[tuple[str, int], int] = field(default_factory=dict)
    said: dict[tuple[str, int], str] = field(default_factory=dict)

    async def take(self) -> Job:
        for _ in range(100):
            jobs = await self.queue.take(self.slot, 1, 0.1)
            if jobs:
                return jobs[0]
        raise AssertionError("no job came")

    async def say(
        self, job: Job, text: str, tokens: int = 1, choice: int = 0, logprobs: tuple[TokenLogprob, ...] = ()
    ) -> None:
        first = self.sent.get((job.request_id, choice), 0)
        self.sent[job.request_id, choice] = first + tokens
        self.said[job.request_id, choice] = self.said.get((job.request_id, choice), "") + text
        piece = Piece(job.request_id, job.attempt, choice, first, tuple(range(100, 100 + tokens)), text, logprobs)
        await self.queue.send({job.submitter: [piece]})

    async def end(
        self,
        job: Job,
        reasons: tuple[str, ...] = ("stop",),
        *,
        outcome: Outcome = Outcome.FINISHED,
        vectors: tuple[bytes, ...] = (),
        error: str | None = None,
        ended_by: str | None = None,
    ) -> End:
        completion = sum(self.sent.pop((job.request_id, choice), 0) for choice in range(max(1, len(reasons))))
        usage = Usage(job.prompt_tokens, completion)
        end = End(job.request_id, job.attempt, reasons, usage, vectors=vectors, error=error, ended_by=ended_by)
        texts = [self.said.pop((job.request_id, choice), "") for choice in range(len(reasons))]
        if job.keep_answer:
            end = replace(end, answers=tuple(Answer(text) for text in texts))
        [settlement] = await self.queue.finish([Finish(end, self.slot.worker_id, outcome)])
        if settlement.accepted:
            await self.queue.send({job.submitter: [settlement.end]})
        return settlement.end

    async def cancelled(self, job: Job) -> None:
        """Until the queue tells this worker to stop the job."""
        for _ in range(100):
            if job.request_id in (await self.queue.renew(self.slot)).cancelled:
                return
            await self.queue.take(self.slot, 0, 0.1)
        raise AssertionError("no cancel came")


class Database:
    def __init__(self) -> None:
        self.away = False

    async def check(self) -> None:
        if self.away:
            raise OSError("gone")


@dataclass
class World:
    services: Services
    server: GatewayServer
    port: int
    broker: MemoryBroker
    principals: FixedPrincipals | SqlPrincipals
    manual: Actor
    database: Database

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open_reservations(self) -> int:
        return self.broker.stats(()).reservations_open


async def _answer_by_itself(actor: Actor) -> None:
    """Says one word for each choice, or gives one vector for each text."""
    while True:
        for job in await actor.queue.take(actor.slot, 8, 1.0):
            if job.sampling is None:
                await actor.end(job, (), vectors=(VECTOR,) * len(job.texts))
                continue
            for choice in range(job.sampling.n):
                await actor.say(job, "Bonjour", 2, choice)
            await actor.end(job, ("stop",) * job.sampling.n)
        await actor.queue.renew(actor.slot)


@asynccontextmanager
async def gateway_world(accounts: SqlAccounts | None = None, **overrides: object) -> AsyncIterator[World]:
    """Keys are FixedPrincipals' and there is no SQL, unless a database of accounts is given."""
    settings = GatewaySettings(**{"body_bytes_max": 65_536, "drain_s": 1, "metrics_dir": None} | overrides)
    clock = SystemClock()
    ids = SystemIds(clock)
    log = structlog.wrap_logger(None, processors=[_drop], wrapper_class=structlog.stdlib.BoundLogger)
    broker = MemoryBroker(queue_settings(CATALOG, settings.cell, settings.lease_ms), clock)
    credit = MemoryCreditStore(broker)
    await credit.open_epoch(1)
    await credit.give("gift", ORGANISATION, 1, 10**15)
    queue = MemorySubmitterQueue(broker, "gateway-1")
    await queue.open()
    keeper = MemoryQueueKeeper(broker)
    refusals = MemoryRefusalLog(clock)
    keepalive_ms = int(settings.headers_hold_s * 1_000)
    exchange_settings = ExchangeSettings(
        lease_ms=settings.lease_ms, keepalive_ms=keepalive_ms, tick_ms=50, watch_every_ms=20
    )
    exchange = Exchange(queue, keeper, exchange_settings, clock, log)
    principals = FixedPrincipals() if accounts is None else accounts.principals(clock)
    database = Database()
    tokenizer = ChatTokenizer.load("v1")
    watch = Watch(exchange, keeper, principals, exchange_settings.watch_every_ms, clock, log)
    services = Services(
        settings=settings,
        catalog=CATALOG,
        principals=principals,
        admitter=Admitter(
            catalog=CATALOG,
            tokenizers={"auto": tokenizer, "manual": tokenizer, "code": ChatTokenizer.load("v3")},
            counters={"embed": WordCounter()},
            cell=settings.cell,
            ids=ids,
            clock=clock,
            submitter="gateway-1",
            settings=AdmissionSettings(),
        ),
        exchange=exchange,
        gate=Gate(exchange, principals, NoFunding()),
        keeper=keeper,
        counters=MemoryCounterStore(broker, clock),
        credit=credit,
        refusals=refusals,
        pools=MemoryPools(broker, clock),
        refused=RefusalBuffer(refusals, log),
        peppers=PEPPERS,
        mailer=None,
        database=never_opened() if accounts is None else accounts.database,
        background={"exchange": exchange.run, "watch": watch.run},
        check_database=database.check,
        metrics=GatewayMetrics(None),
        lifecycle=Lifecycle(),
        clock=clock,
        ids=ids,
        log=log,
    )
    server = GatewayServer(services)
    listening = bind("127.0.0.1", 0, 128)
    port = listening.getsockname()[1]
    worker_queue = MemoryWorkerQueue(broker)
    actors = [Actor(worker_queue, WorkerSlot(f"worker-{tier}", tier, 8)) for tier in ("auto", "embed", "manual")]
    playing = [asyncio.create_task(_answer_by_itself(actor)) for actor in actors[:2]]
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield World(services, server, port, broker, principals, actors[2], database)
    finally:
        server.should_exit = True
        await serving
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)
        await exchange.close()


def _drop(_logger: object, _method: str, _event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    raise structlog.DropEvent


def caller(world):
    return httpx.AsyncClient(base_url=world.url, headers=AUTH, timeout=WAIT_S)


def chat(model="auto", **fields):
    return {"model": model, "messages": MESSAGES, **fields}


def chunks(text):
    lines = [line[6:] for line in text.split("\n\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
