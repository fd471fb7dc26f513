"""`tramontane run worker`: one process, the chat tiers of the catalog or those named, an engine and a loop for each."""

from collections.abc import Mapping

import uvloop
from prometheus_client import CollectorRegistry
from structlog.stdlib import BoundLogger

from core.catalog import Catalog, Tier
from core.clock import Clock, SystemClock
from core.errors import SetupError
from core.heartbeat import Heartbeat
from core.ids import IdSource, SystemIds
from core.installation import catalog_for
from core.logs import set_up_logs
from core.queue.base import WorkerQueue, WorkerSlot
from core.queue.host import Host, Pool
from core.queue.loop import WorkLoop
from core.queue.redis import RedisWorkerQueue
from core.queue.settings import queue_settings
from core.redis import connect
from core.settings import limit_threads, read_settings
from core.weights import resolve_weights
from workers.engines.factory import make_engine
from workers.generator import Generator
from workers.metrics import WorkerMetrics
from workers.settings import WorkerSettings
from workers.text import Vocabulary

ID_BYTES = 6


def main() -> int:
    """Run until SIGTERM or SIGINT has drained it; the exit code. Raises SetupError."""
    settings = read_settings(WorkerSettings)
    catalog = catalog_for(settings)
    tiers = [tier for tier in catalog.tiers if tier.kind == "chat"]
    if not tiers:
        raise SetupError("There is no chat tier for a worker to serve.")
    limit_threads(max(tier.threads for tier in tiers))  # before an engine's module loads torch
    uvloop.run(serve(settings, catalog, tiers, set_up_logs("worker", settings.log_level)))
    return 0


async def serve(settings: WorkerSettings, catalog: Catalog, tiers: list[Tier], log: BoundLogger) -> None:
    clock = SystemClock()
    ids = SystemIds(clock)
    metrics = WorkerMetrics(CollectorRegistry())
    client = connect(settings.redis(), settings.redis_timeout_s)
    try:
        queue = RedisWorkerQueue(client, queue_settings(catalog, settings.cell, settings.lease_ms))
        vocabularies = {name: Vocabulary.load(name) for name in {tier.tokenizer for tier in tiers}}
        pools = [_pool(tier, settings, queue, vocabularies, metrics, clock, ids, log) for tier in tiers]
        await Host(pools, Heartbeat(settings.heartbeat_file), log).run()
    finally:
        await client.aclose()


def _pool(
    tier: Tier,
    settings: WorkerSettings,
    queue: WorkerQueue,
    vocabularies: Mapping[str, Vocabulary],
    metrics: WorkerMetrics,
    clock: Clock,
    ids: IdSource,
    log: BoundLogger,
) -> Pool:
    worker_id = f"{tier.name}-{ids.token(ID_BYTES)}"
    log = log.bind(tier=tier.name, worker=worker_id)
    engine = make_engine(tier, resolve_weights(tier.weights, settings.home), clock, log)
    generator = Generator(engine, vocabularies[tier.tokenizer], log)
    slot = WorkerSlot(worker_id, tier.name, tier.slots)
    loop = WorkLoop(queue, generator, slot, settings.loop(), clock, log, metrics.of(tier.name))
    return Pool(tier.name, generator, loop)
