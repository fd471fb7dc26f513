"""`tramontane run collector`: usage into SQL, and credit to those who run dry."""

import asyncio
import signal

from prometheus_client import CollectorRegistry
from structlog.stdlib import BoundLogger

from billing.collector import Collector, CollectorBounds
from billing.lender import Lender
from billing.settings import CollectorSettings
from billing.treasury import Treasury
from core.clock import SystemClock
from core.db import connect_database
from core.heartbeat import Heartbeat
from core.ids import SystemIds
from core.logs import set_up_logs
from core.meter.credit_redis import RedisCreditStore
from core.meter.usage_redis import RedisUsageSource
from core.metrics_port import serve_metrics
from core.redis import connect
from core.settings import read_settings


def main() -> int:
    """Run until SIGTERM or SIGINT, then finish the batch at hand; the exit code. Raises SetupError."""
    settings = read_settings(CollectorSettings)
    serve_metrics(settings, CollectorRegistry())
    asyncio.run(serve(settings, set_up_logs("collector", settings.log_level)))
    return 0


async def serve(settings: CollectorSettings, log: BoundLogger) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    database = connect_database(settings.database())
    client = connect(settings.redis(), settings.redis_timeout_s)
    clock = SystemClock()
    store = RedisCreditStore(client, settings.cell)
    lender = Lender(Treasury(database, store, clock, SystemIds(clock)), store, database, clock, log)
    try:
        source = RedisUsageSource(client, settings.cell, settings.collector_name)
        bounds = CollectorBounds(batch=settings.collector_batch)
        log.info("collector started", batch=bounds.batch)
        async with asyncio.TaskGroup() as group:
            group.create_task(lender.run(stop))
            group.create_task(
                Collector(source, database, clock, Heartbeat(settings.heartbeat_file), log, bounds).run(stop)
            )
        log.info("collector stopped")
    finally:
        await store.close()
        await client.aclose()
        database.close()
