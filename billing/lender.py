"""Credit where no gateway asks for it: running requests that ran dry, and blocks that lie idle. Runs beside the
collector.
"""

import asyncio

from redis.exceptions import RedisError
from sqlalchemy import select
from structlog.stdlib import BoundLogger

from billing.accounts import CreditHold
from billing.treasury import EpochNotOpenError, Treasury
from core.clock import Clock
from core.db import Database, DatabaseUnavailableError
from core.meter.credit import CreditStore

TROUBLE = (DatabaseUnavailableError, EpochNotOpenError, RedisError, OSError)
IDLE_MAX = 10_000


class Lender:
    """A block is idle if its organisation had nothing open and the same credit free at two looks, `idle_s` apart."""

    def __init__(
        self,
        treasury: Treasury,
        store: CreditStore,
        database: Database,
        clock: Clock,
        log: BoundLogger,
        *,
        idle_s: float = 60.0,
        wait_s: float = 1.0,
    ) -> None:
        self._treasury = treasury
        self._store = store
        self._database = database
        self._clock = clock
        self._log = log
        self._idle_s = idle_s
        self._wait_s = wait_s
        self._free_nano: dict[str, int] = {}
        self._looked_s = clock.monotonic_s()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; what is not trouble that passes, is raised."""
        while not stop.is_set():
            try:
                for hunger in await self._store.hungry(self._wait_s):
                    await self._treasury.lend(hunger.organisation, hunger.needed_nano)
                if self._clock.monotonic_s() - self._looked_s >= self._idle_s:
                    self._looked_s = self._clock.monotonic_s()
                    await self._look()
            except TROUBLE as error:
                self._log.warning("lender waits", error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(self._wait_s)

    async def _look(self) -> None:
        epoch = (await self._store.epoch()).number
        seen: dict[str, int] = {}
        for organisation in await asyncio.to_thread(self._holders, epoch):
            level = await self._store.level(organisation)
            if level.reserved_nano or level.available_nano <= 0:
                continue
            if self._free_nano.get(organisation) == level.available_nano:
                await self._treasury.take_back(organisation, level.available_nano)
            else:
                seen[organisation] = level.available_nano
        self._free_nano = seen

    def _holders(self, epoch: int) -> list[str]:
        query = select(CreditHold.organisation).where(CreditHold.epoch == epoch, CreditHold.held_nano > 0)
        with self._database.reading() as session:
            return list(session.scalars(query.order_by(CreditHold.organisation).limit(IDLE_MAX)))
