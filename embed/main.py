"""`tramontane run embed`: one process, the embedding tiers of the catalog, an encoder and a loop for each."""

import uvloop
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
from core.wire import EMBED
from embed.encoders.factory import make_encoder
from embed.executor import EmbeddingExecutor
from embed.settings import EmbedSettings

ID_BYTES = 6


def main() -> int:
    """Run until SIGTERM or SIGINT has drained it; the exit code. Raises SetupError."""
    settings = read_settings(EmbedSettings)
    catalog = catalog_for(settings)
    tiers = [tier for tier in catalog.tiers if tier.kind == EMBED]
    if not tiers:
        raise SetupError("There is no embedding tier to serve.")
    limit_threads(max(tier.threads for tier in tiers))  # before an encoder's module loads torch
    uvloop.run(serve(settings, catalog, tiers, set_up_logs("embed", settings.log_level)))
    return 0


async def serve(settings: EmbedSettings, catalog: Catalog, tiers: list[Tier], log: BoundLogger) -> None:
    clock = SystemClock()
    ids = SystemIds(clock)
    client = connect(settings.redis(), settings.redis_timeout_s)
    try:
        queue = RedisWorkerQueue(client, queue_settings(catalog, settings.cell, settings.lease_ms))
        pools = [_pool(tier, settings, queue, clock, ids, log) for tier in tiers]
        await Host(pools, Heartbeat(settings.heartbeat_file), log).run()
    finally:
        await client.aclose()


def _pool(
    tier: Tier, settings: EmbedSettings, queue: WorkerQueue, clock: Clock, ids: IdSource, log: BoundLogger
) -> Pool:
    worker_id = f"{tier.name}-{ids.token(ID_BYTES)}"
    log = log.bind(tier=tier.name, worker=worker_id)
    executor = EmbeddingExecutor(tier, make_encoder(tier, settings.home), clock, log)
    loop = WorkLoop(queue, executor, WorkerSlot(worker_id, tier.name, tier.slots), settings.loop(), clock, log)
    return Pool(tier.name, executor, loop)
