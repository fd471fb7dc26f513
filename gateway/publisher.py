"""Tells Redis the generations again: what a command could not tell because Redis was away, and what Redis has lost."""

import asyncio

from structlog.stdlib import BoundLogger

from core.db import Database, DatabaseUnavailableError
from core.queue.base import QueueKeeper
from gateway.accounts.seed import seed_platform
from gateway.desk import QUEUE_AWAY

EVERY_S = 30.0


class Publisher:
    def __init__(self, database: Database, keeper: QueueKeeper, log: BoundLogger, *, every_s: float = EVERY_S) -> None:
        self._database = database
        self._keeper = keeper
        self._log = log
        self._every_s = every_s

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.publish()
            except (DatabaseUnavailableError, *QUEUE_AWAY) as error:
                self._log.info("generations not published", error=type(error).__name__)

    async def publish(self) -> None:
        await seed_platform(self._database, self._keeper)
