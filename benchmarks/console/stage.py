"""A gateway over a seeded database, without workers: the application itself, its pages, and who opens them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import structlog
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from benchmarks.console.chats import OPERATOR_EMAIL
from billing.treasury import Treasury
from core.catalog import Catalog
from core.clock import SystemClock
from core.db import Database
from core.ids import SystemIds
from core.meter.refusals import MemoryRefusalLog
from core.queue.memory import (
    MemoryBroker,
    MemoryCounterStore,
    MemoryCreditStore,
    MemoryPools,
    MemoryQueueKeeper,
    MemorySubmitterQueue,
)
from core.queue.settings import queue_settings
from core.tokens import ChatTokenizer
from gateway.accounts.keys import Pepper, Peppers
from gateway.accounts.people import User
from gateway.accounts.principals import SqlPrincipals
from gateway.accounts.sessions import Origin, open_session
from gateway.admission import AdmissionSettings, Admitter
from gateway.app import create_app
from gateway.desk import ExchangeSettings
from gateway.exchange import Exchange
from gateway.funding import BillingFunding
from gateway.gate import Gate
from gateway.metrics import GatewayMetrics
from gateway.publisher import Publisher
from gateway.refusal_buffer import RefusalBuffer
from gateway.services import Lifecycle, Services
from gateway.settings import GatewaySettings

SUBMITTER = "benchmark"
HERE = Origin("192.0.2.7", "a benchmark", "")


@dataclass(frozen=True, slots=True)
class Stage:
    services: Services
    app: FastAPI

    def browser(self) -> httpx.AsyncClient:
        """Logged in as the operator of the seeded database."""
        clock = self.services.clock
        with self.services.database.unit_of_work() as session:
            user = session.scalars(select(User).where(User.email == OPERATOR_EMAIL)).one()
            logged_in = open_session(session, user, HERE, clock=clock, ids=self.services.ids)
        client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://gateway", timeout=60)
        client.cookies.set("tramontane_session", logged_in.token.get_secret_value(), path="/console")
        return client


async def open_stage(database: Database, catalog: Catalog) -> Stage:
    services = await _services(database, catalog)
    return Stage(services, create_app(services))


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """A list that grows with each statement."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if not statement.startswith("BEGIN"):
            statements.append(statement)

    with database.reading() as session:
        engine = _engine(session)
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


def _engine(session: Session) -> object:
    return session.connection().engine


async def _services(database: Database, catalog: Catalog) -> Services:
    """As gateway/main.py, with the queue in memory."""
    clock, settings = SystemClock(), GatewaySettings(metrics_dir=None)
    ids = SystemIds(clock)
    log = structlog.wrap_logger(None, processors=[_drop], wrapper_class=structlog.stdlib.BoundLogger)
    broker = MemoryBroker(queue_settings(catalog, settings.cell, settings.lease_ms), clock)
    queue, keeper = MemorySubmitterQueue(broker, SUBMITTER), MemoryQueueKeeper(broker)
    await queue.open()
    exchange = Exchange(queue, keeper, ExchangeSettings(lease_ms=settings.lease_ms), clock, log)
    peppers = Peppers(Pepper(1, SecretStr("benchmark")))
    principals = SqlPrincipals(database, peppers, clock, [tier.name for tier in catalog.tiers])
    refusals = MemoryRefusalLog(clock)
    chat_tiers = [tier for tier in catalog.tiers if tier.kind == "chat"]
    tokenizers = {tier.name: ChatTokenizer.load(tier.tokenizer) for tier in chat_tiers}
    admitter = Admitter(
        catalog=catalog,
        tokenizers=tokenizers,
        counters={},
        cell=settings.cell,
        ids=ids,
        clock=clock,
        submitter=SUBMITTER,
        settings=AdmissionSettings(),
    )
    credit, counters = MemoryCreditStore(broker), MemoryCounterStore(broker, clock)
    treasury, publisher = Treasury(database, credit, clock, ids), Publisher(database, keeper, log)
    funding = BillingFunding(treasury, publisher, counters, database, clock, log)
    return Services(
        settings=settings,
        catalog=catalog,
        principals=principals,
        admitter=admitter,
        exchange=exchange,
        gate=Gate(exchange, principals, funding),
        keeper=keeper,
        counters=counters,
        credit=credit,
        refusals=refusals,
        refused=RefusalBuffer(refusals, log),
        pools=MemoryPools(broker, clock),
        peppers=peppers,
        mailer=None,
        database=database,
        background={},
        check_database=lambda: asyncio.to_thread(database.check),
        metrics=GatewayMetrics(None),
        lifecycle=Lifecycle(),
        clock=clock,
        ids=ids,
        log=log,
    )


def _drop(_logger: object, _method: str, _event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    raise structlog.DropEvent
