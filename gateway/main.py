"""A gateway process: build everything from the environment, serve until SIGTERM, drain."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType

import structlog
import uvicorn
import uvloop

from billing.prices import ensure_priced
from billing.treasury import Treasury
from core.catalog import Catalog
from core.clock import Clock, SystemClock
from core.db import Database, DatabaseUnavailableError, connect_database
from core.errors import SetupError
from core.heartbeat import BEAT_S, Beat, Heartbeat
from core.ids import IdSource, SystemIds
from core.installation import catalog_for
from core.logs import set_up_logs
from core.memory import settle_memory
from core.meter.credit_redis import RedisCounterStore, RedisCreditStore
from core.meter.refusals import RedisRefusalLog
from core.pools_redis import RedisPools
from core.queue.redis import RedisQueueKeeper, RedisSubmitterQueue
from core.queue.settings import queue_settings
from core.redis import connect
from core.settings import read_settings
from core.text_counter import Counter, text_counter
from core.tokens import ChatTokenizer
from gateway.accounts.mail import mailer_of
from gateway.accounts.principals import SqlPrincipals
from gateway.accounts.settings import peppers_of
from gateway.admission import AdmissionSettings, Admitter
from gateway.app import create_app
from gateway.desk import QUEUE_AWAY, ExchangeSettings
from gateway.exchange import Exchange
from gateway.funding import BillingFunding
from gateway.gate import Gate
from gateway.metrics import GatewayMetrics
from gateway.protocol import ConnectionLimits, protocol_class
from gateway.publisher import Publisher
from gateway.refusal_buffer import RefusalBuffer
from gateway.services import Lifecycle, Services
from gateway.settings import GatewaySettings
from gateway.watch import Watch

SUBMITTER_BYTES = 8
CLOSE_S = 5
MS_PER_S = 1_000


def main() -> int:
    """The exit code: 0 after a drain. Raises SetupError with one sentence."""
    settings = read_settings(GatewaySettings)
    return run_gateway("gateway", settings, partial(listening_socket, settings))


def run_gateway(name: str, settings: GatewaySettings, listening: Callable[[], socket.socket]) -> int:
    """`name` stands in its log; `listening` is asked for its socket once it could answer."""
    log = set_up_logs(name, settings.log_level)
    catalog = catalog_for(settings)
    database = connect_database(settings.database())
    clock = SystemClock()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(settings, catalog, database, clock, SystemIds(clock), log, listening))
    finally:
        database.close()


async def _serve(
    settings: GatewaySettings,
    catalog: Catalog,
    database: Database,
    clock: Clock,
    ids: IdSource,
    log: structlog.stdlib.BoundLogger,
    listening: Callable[[], socket.socket],
) -> int:
    submitter = ids.token(SUBMITTER_BYTES)
    bounds = queue_settings(catalog, settings.cell, settings.lease_ms)
    client = connect(settings.redis(), settings.redis_timeout_s)
    queue = RedisSubmitterQueue(client, bounds, submitter)
    keeper = RedisQueueKeeper(client, bounds)
    credit = RedisCreditStore(client, settings.cell)
    counters = RedisCounterStore(client, settings.cell)
    treasury = Treasury(database, credit, clock, ids)
    publisher = Publisher(database, keeper, log)
    async with _sentences():
        await asyncio.to_thread(_check_prices, database, catalog, clock)
        await queue.open()
        await publisher.publish()
    exchange_settings = ExchangeSettings(
        lease_ms=settings.lease_ms, keepalive_ms=int(settings.headers_hold_s * MS_PER_S)
    )
    exchange = Exchange(queue, keeper, exchange_settings, clock, log)
    peppers = peppers_of(settings)
    principals = SqlPrincipals(database, peppers, clock, [tier.name for tier in catalog.tiers])
    refusals = RedisRefusalLog(client, settings.cell, clock)
    refused = RefusalBuffer(refusals, log)
    pools = RedisPools(client, bounds)
    watch = Watch(exchange, keeper, principals, exchange_settings.watch_every_ms, clock, log)
    funding = BillingFunding(treasury, publisher, counters, database, clock, log)
    services = Services(
        settings=settings,
        catalog=catalog,
        principals=principals,
        admitter=_admitter(settings, catalog, submitter, clock, ids),
        exchange=exchange,
        gate=Gate(exchange, principals, funding),
        keeper=keeper,
        counters=counters,
        credit=credit,
        refusals=refusals,
        refused=refused,
        pools=pools,
        peppers=peppers,
        mailer=mailer_of(settings),
        database=database,
        background={"exchange": exchange.run, "watch": watch.run, "publisher": publisher.run, "refusals": refused.run},
        check_database=lambda: asyncio.to_thread(database.check),
        metrics=GatewayMetrics(settings.metrics_dir),
        lifecycle=Lifecycle(),
        clock=clock,
        ids=ids,
        log=log,
    )
    settle_memory()
    try:
        return await serve_http(services, listening())
    finally:
        await exchange.close()
        await funding.close()
        await refused.flush()
        for part in (keeper, credit, counters, pools):
            await part.close()
        await client.aclose()


@contextlib.asynccontextmanager
async def _sentences() -> AsyncIterator[None]:
    """What is away at the start is told in one."""
    try:
        yield
    except QUEUE_AWAY as error:
        raise SetupError(f"Redis does not answer ({type(error).__name__}); check TRAMONTANE_REDIS_URL.") from error
    except DatabaseUnavailableError as error:
        raise SetupError(f"The database does not answer: {error}.") from error


def _admitter(settings: GatewaySettings, catalog: Catalog, submitter: str, clock: Clock, ids: IdSource) -> Admitter:
    return Admitter(
        catalog=catalog,
        tokenizers=load_tokenizers(catalog),
        counters=load_counters(catalog, settings.home),
        cell=settings.cell,
        ids=ids,
        clock=clock,
        submitter=submitter,
        settings=AdmissionSettings(),
    )


def _check_prices(database: Database, catalog: Catalog, clock: Clock) -> None:
    with database.reading() as session:
        ensure_priced(session, [tier.name for tier in catalog.tiers], clock.now_ms())


async def serve_http(services: Services, listening: socket.socket) -> int:
    """Answer on this socket until SIGTERM or SIGINT, or until the process cannot do its work any more."""
    # Only a gateway reaches a Unix socket, and it says for whom it asks.
    server = GatewayServer(services, relayed=listening.family == socket.AF_UNIX)
    beating = asyncio.create_task(_beat(services, server))
    try:
        await server.serve(sockets=[listening])
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating
    return 1 if services.lifecycle.broken else 0


class GatewayServer(uvicorn.Server):
    """uvicorn, whose shutdown lets open requests end and then ends the rest without charge."""

    def __init__(self, services: Services, *, relayed: bool = False) -> None:
        settings = services.settings
        trusted = ["*"] if relayed else [str(network) for network in settings.trusted_proxies]
        limits = ConnectionLimits(
            head_bytes_max=settings.head_bytes_max,
            head_s_max=settings.head_s_max,
            body_s_max=settings.body_s_max,
            discard_bytes_max=settings.discard_bytes_max,
            write_stall_s_max=settings.write_stall_s_max,
        )
        super().__init__(
            uvicorn.Config(
                create_app(services),
                http=protocol_class(limits),
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="error",
                access_log=False,
                proxy_headers=bool(trusted),
                forwarded_allow_ips=trusted,
                server_header=False,
                backlog=settings.backlog,
                timeout_keep_alive=settings.keep_alive_s,
                timeout_graceful_shutdown=settings.drain_s + CLOSE_S,
            )
        )
        self._services = services

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Not uvicorn's own, which ends by raising the signal again: a drained process exits with 0."""
        del frame
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self._services.lifecycle.draining = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._services.lifecycle.draining = True
        draining = asyncio.create_task(self._services.exchange.drain(self._services.settings.drain_s))
        try:
            await super().shutdown(sockets)
        finally:
            draining.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await draining


def listening_socket(settings: GatewaySettings) -> socket.socket:
    """The one inherited from `up`, or an own one."""
    try:
        if settings.listen_fd is not None:
            return socket.socket(fileno=settings.listen_fd)
        return bind(settings.host, settings.port, settings.backlog)
    except OSError as error:
        place = f"{settings.host} port {settings.port}" if settings.listen_fd is None else "TRAMONTANE_LISTEN_FD"
        raise SetupError(f"Cannot listen on {place}: {error.strerror}.") from error


def bind(host: str, port: int, backlog: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    created = socket.create_server((host, port), family=family, backlog=backlog)
    # Made anew from its number it knows that it speaks TCP; without that asyncio leaves Nagle's delay on.
    return socket.socket(fileno=created.detach())


def load_tokenizers(catalog: Catalog) -> Mapping[str, ChatTokenizer]:
    """One for each chat tier; tiers with the same tokenizer share it."""
    names = {tier.name: tier.tokenizer for tier in catalog.tiers if tier.kind == "chat"}
    loaded = {name: ChatTokenizer.load(name) for name in dict.fromkeys(names.values())}
    return {tier: loaded[name] for tier, name in names.items()}


def load_counters(catalog: Catalog, home: Path) -> Mapping[str, Counter]:
    return {tier.name: text_counter(tier, home) for tier in catalog.tiers if tier.kind == "embed"}


async def _beat(services: Services, server: uvicorn.Server) -> None:
    """Touch the heartbeat file as long as this process can do its work; without its exchange it cannot, and ends."""
    heartbeat = Heartbeat(services.settings.heartbeat_file)
    while not services.lifecycle.broken:
        ready = server.started and services.exchange.connected and not services.lifecycle.draining
        heartbeat.beat(Beat(ready=ready, note="" if ready else "waiting for Redis"))
        await asyncio.sleep(BEAT_S)
    server.should_exit = True
