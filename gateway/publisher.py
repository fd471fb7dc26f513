"""Tells Redis the generations again: what a command could not tell because Redis was away, and what Redis has lost."""

import asyncio

from structlog.stdlib import BoundLogger

from core.db import Database, DatabaseUnavailableError
from core.queue.base import QueueKeeper
from gateway.accounts.generations import Generation, all_generations, publish_generations
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
        """Every generation. Raises DatabaseUnavailableError, or what Redis raises."""
        await publish_generations(self._keeper, await asyncio.to_thread(self._generations))

    def _generations(self) -> list[Generation]:
        with self._database.reading() as session:
            return all_generations(session)
