"""One life of the platform on this machine: its start step by step, its watch, its orderly end."""

import asyncio
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.multiprocess import mark_process_dead
from redis.exceptions import RedisError

from cli.catch_up import CONSUMER, caught_up
from cli.checkpoints import place_checkpoints
from cli.children import COLLECTOR_STAGE, Backends, Gateways, demo_names, environment_of, process_table
from cli.database import database_name, first_key, first_login, prepare_database
from cli.health import ready_url, wait_for_ready
from cli.home import Home, empty_metrics
from cli.leftovers import end_leftovers
from cli.pools import served, worker_pools
from cli.private_redis import answers, private_redis, remember_version, wait_for_answer
from cli.progress import Progress, Summary
from cli.state import State, describe, with_processes, write_state
from cli.supervisor import Supervisor
from core.catalog import Catalog
from core.clock import Clock
from core.errors import SetupError
from core.ids import IdSource
from core.installation import config_path
from core.meter.usage_redis import RedisUsageSource
from core.redis import connect
from gateway.accounts.settings import AccountSettings

START_S_MAX = 600.0
COLLECT_S_MAX = 10.0
OWN_NAME = "supervisor"


@dataclass(frozen=True, slots=True)
class UpOptions:
    """`drain_s`: what gateways give to open requests after SIGTERM."""

    host: str
    port: int
    gateways: int
    drain_s: float
    detached: bool


@dataclass(frozen=True, slots=True)
class Context:
    """What every step of the start needs. `settings.home` is absolute."""

    home: Home
    catalog: Catalog
    settings: AccountSettings
    options: UpOptions
    listener: socket.socket
    inherited: Mapping[str, str]
    progress: Progress
    clock: Clock
    ids: IdSource

    @property
    def base_url(self) -> str:
        host, port = self.listener.getsockname()[:2]
        if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
            host = "127.0.0.1"
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def database_url(self) -> str | None:
        url = self.settings.database_url
        return None if url is None else url.get_secret_value()


class Books:
    """Keeps state.json true to the processes that run."""

    def __init__(self, context: Context, pid: int) -> None:
        self._context = context
        self._pid = pid
        self._redis_url = ""
        self._processes: Sequence[tuple[str, int]] = ()

    def redis_is(self, url: str) -> None:
        self._redis_url = url
        self._write()

    async def before_stage(self, stage: int) -> None:
        """Give the collector a moment for what was settled last: after the end, `usage` reads SQL only."""
        if stage != COLLECTOR_STAGE:
            return
        client = connect(self._redis_url, COLLECT_S_MAX)
        try:
            source = RedisUsageSource(client, self._context.settings.cell, CONSUMER)
            if not await caught_up(source, self._context.clock, COLLECT_S_MAX):
                self._context.progress.warn("Some usage is not in SQL yet; the next start collects it.")
        except RedisError as error:
            self._context.progress.warn(f"Redis does not answer any more ({error}).")
        finally:
            await client.aclose()

    def changed(self, processes: Sequence[tuple[str, int]]) -> None:
        self._processes = processes
        self._write()

    def ended(self, name: str, pid: int) -> None:
        if name.startswith(("gateway", "console")):
            mark_process_dead(pid, str(self._context.home.metrics))  # type: ignore[no-untyped-call]  # library

    def _write(self) -> None:
        context = self._context
        state = State(
            supervisor=describe(OWN_NAME, self._pid),
            base_url=context.base_url,
            redis_url=self._redis_url,
            database_url=context.database_url,
            config=str(config_path(context.settings).absolute()),
            engine=context.settings.engine,
            tiers=context.settings.tiers,
        )
        try:
            write_state(context.home, with_processes(state, self._processes))
        except OSError as error:  # a full disk must not end a platform that runs
            context.progress.warn(f"{context.home.run} cannot be written ({error.strerror}).")


async def live(context: Context) -> bool:
    """From the first process to the last. Answers whether it was ever ready; raises SetupError."""
    stop = asyncio.Event()
    books = Books(context, os.getpid())
    supervisor = Supervisor(context.clock, context.progress.warn, books.changed, books.ended)
    _hear_signals(stop, supervisor)
    start = asyncio.create_task(_start(context, supervisor, books))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({start, stopped}, return_when=asyncio.FIRST_COMPLETED, timeout=START_S_MAX)
        if not start.done() and not stop.is_set():
            raise SetupError(f"Not ready after {START_S_MAX:.0f} s; the logs are in {context.home.logs}.")
        if start.done():
            context.progress.ready(await start)
            watch = asyncio.create_task(supervisor.watch())
            await stop.wait()
            await _cancelled(watch)
        context.progress.begin("Stopping")
    finally:
        await _cancelled(start)
        await _cancelled(stopped)
        await supervisor.stop(context.progress.note, books.before_stage)
    context.progress.done("Stopped", str(context.home.root))
    return not start.cancelled()


def _hear_signals(stop: asyncio.Event, supervisor: Supervisor) -> None:
    """The first asks for an orderly end, the second for a quick one."""

    def heard() -> None:
        if stop.is_set():
            supervisor.hurry()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, heard)


async def _cancelled(task: asyncio.Task[object]) -> None:
    """Cancel and await; a result or failure that is already there was looked at before."""
    task.cancel()
    await asyncio.wait({task})


async def _start(context: Context, supervisor: Supervisor, books: Books) -> Summary:
    home, catalog, progress = context.home, context.catalog, context.progress
    await asyncio.to_thread(end_leftovers, home, context.clock)
    empty_metrics(home)
    redis_url = await _redis(context, supervisor)
    books.redis_is(redis_url)
    await _database(context)
    backends = Backends(redis_url, context.database_url, config_path(context.settings))
    env = environment_of(context.inherited, context.settings, home, catalog, backends)
    demos = demo_names(catalog)
    if demos:
        progress.begin("Placing demo checkpoints")
        if await place_checkpoints(home, demos, env, progress.note):
            progress.done("Demo weights", ", ".join(demos))
    gateways = Gateways(context.options.gateways, context.listener.fileno(), context.options.drain_s)
    table = process_table(home, catalog, env, gateways)
    progress.begin("Starting")
    await supervisor.start(table)
    serves = _serves(catalog)
    await supervisor.ready(
        [spec.name for spec in table],
        lambda name: progress.done(name, serves.get(name, context.base_url)),
        progress.note,
    )
    await wait_for_ready(ready_url(context.base_url), supervisor.pause)
    # Last, since a key is shown only once: a start that fails must not use it up.
    key = await asyncio.to_thread(first_key, context.settings, context.clock, context.ids)
    link = await asyncio.to_thread(first_login, context.settings, context.base_url, context.clock, context.ids)
    return Summary(
        base_url=context.base_url,
        home=str(home.root),
        api_key=None if key is None else key.get_secret_value(),
        chat_model=next((tier.name for tier in catalog.tiers if tier.kind == "chat"), None),
        embed_model=next((tier.name for tier in catalog.tiers if tier.kind == "embed"), None),
        detached=context.options.detached,
        login_link=None if link is None else link.get_secret_value(),
    )


def _serves(catalog: Catalog) -> dict[str, str]:
    """Process name to the tiers behind it."""
    embed = ", ".join(tier.name for tier in catalog.tiers if tier.kind == "embed")
    others = {"collector": "usage into SQL", "celery": "periodic work", "console": "pages"}
    return {**served(worker_pools(catalog)), "embed": embed, **others}


async def _redis(context: Context, supervisor: Supervisor) -> str:
    """The configured Redis, or a private one that is up; its URL."""
    context.progress.begin("Starting Redis")
    if context.settings.redis_url is not None:
        url = context.settings.redis_url.get_secret_value()
        if not await answers(url):
            raise SetupError("The Redis of TRAMONTANE_REDIS_URL does not answer.")
        context.progress.done("Redis", "the one of TRAMONTANE_REDIS_URL")
        return url
    redis = private_redis(context.home, context.inherited)
    await supervisor.start([redis.spec])
    await wait_for_answer(redis.url, supervisor.pause)
    remember_version(context.home, redis.server)
    context.progress.done("Redis", f"{redis.server.version_text}, private, append-only file")
    return redis.url


async def _database(context: Context) -> None:
    """Migrated and seeded."""
    settings, progress = context.settings, context.progress
    progress.begin("Migrating the database")
    differ = await asyncio.to_thread(prepare_database, settings, context.catalog, context.clock, context.ids)
    progress.done("Database", f"{database_name(settings)}, migrated")
    if differ:
        progress.warn(f"The file's plans differ from the database, which counts: {', '.join(differ)}.")
