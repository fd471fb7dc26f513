"""`tramontane run collector`."""

import asyncio
import signal

from structlog.stdlib import BoundLogger

from billing.collector import Collector, CollectorBounds
from billing.settings import CollectorSettings
from core.db import connect_database
from core.heartbeat import Heartbeat
from core.logs import set_up_logs
from core.meter.usage_redis import RedisUsageSource
from core.redis import connect
from core.settings import read_settings


def main() -> int:
    """Run until SIGTERM or SIGINT, then finish the batch at hand; the exit code. Raises SetupError."""
    settings = read_settings(CollectorSettings)
    asyncio.run(serve(settings, set_up_logs("collector", settings.log_level)))
    return 0


async def serve(settings: CollectorSettings, log: BoundLogger) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    database = connect_database(settings.database())
    client = connect(settings.redis(), settings.redis_timeout_s)
    try:
        source = RedisUsageSource(client, settings.cell, settings.collector_name)
        bounds = CollectorBounds(batch=settings.collector_batch)
        log.info("collector started", batch=bounds.batch)
        await Collector(source, database, Heartbeat(settings.heartbeat_file), log, bounds).run(stop)
        log.info("collector stopped")
    finally:
        await client.aclose()
        database.close()
