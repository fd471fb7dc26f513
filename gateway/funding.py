"""What admission needs of billing now and then: a block of credit, a counter's beginning, the next epoch.

All of it is off the path of an ordinary request; what many requests need at the same moment is asked once.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from structlog.stdlib import BoundLogger

from billing.treasury import EpochNotOpenError, Lent, Treasury
from billing.windows import seed_counters
from core.clock import Clock
from core.db import Database, DatabaseUnavailableError
from core.errors import UNAVAILABLE, PlatformError
from core.meter.credit import CounterStore
from core.queue.base import Admission, Refused
from gateway.desk import QUEUE_AWAY
from gateway.publisher import Publisher
from gateway.refusals import refusal_error

TROUBLE = (DatabaseUnavailableError, EpochNotOpenError, *QUEUE_AWAY)
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class FundingSettings:
    """An organisation whose free credit in Redis covers fewer than `low_requests` of what it just asked for is given
    the next block in the background, at most every `refill_ms`. Credit that is on its way between SQL and Redis is
    waited for `moving_ms` at a time.
    """

    wait_s: float = 5.0
    retry_after_s: int = 2
    low_requests: int = 16
    refill_ms: int = 100
    moving_ms: int = 100


@dataclass(slots=True)
class _Round:
    """Who is short of credit until billing is asked: their needs in sum, and the smallest."""

    needed_nano: int = 0
    least_nano: int = 0
    task: "asyncio.Task[Lent] | None" = None


class BillingFunding:
    """Implements `gateway.gate.Funding`. One for each process, used from one event loop."""

    def __init__(
        self,
        treasury: Treasury,
        publisher: Publisher,
        counters: CounterStore,
        database: Database,
        clock: Clock,
        log: BoundLogger,
        settings: FundingSettings | None = None,
    ) -> None:
        self._treasury = treasury
        self._publisher = publisher
        self._counters = counters
        self._database = database
        self._clock = clock
        self._log = log
        self._settings = settings or FundingSettings()
        self._running: dict[Hashable, asyncio.Task[Any]] = {}
        self._refilling: set[str] = set()
        self._rounds: dict[str, _Round] = {}
        self._lending: dict[str, asyncio.Task[Lent]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def lend(self, admission: Admission, refused: Refused) -> None:
        needed_nano = refused.refusal.limit
        lent = await self._within(self._join_round(admission.job.organisation, needed_nano))
        if lent.level_nano >= needed_nano:
            return
        if lent.free_nano < needed_nano:
            raise self._shortage(refused, lent)
        await asyncio.sleep(self._settings.moving_ms / 1_000)  # another gateway has it in its hands

    async def seed(self, admission: Admission) -> None:
        """All calendar counters of the admission, for each of them would be refused in its turn."""
        organisation = admission.job.organisation
        now_ms = self._clock.now_ms()
        wanted = [(rule, window) for rule in admission.rules for window in rule.windows if window.end_ms > now_ms]
        what = ("seed", *((rule.kind, rule.counter, window.id) for rule, window in wanted))
        await self._once(what, partial(seed_counters, self._counters, self._database, organisation, wanted))

    async def open_epoch(self) -> None:
        await self._once("epoch", self._open_epoch)

    def spent(self, admission: Admission, credit_left_nano: int) -> None:
        if credit_left_nano < 0:
            return
        price = admission.prices[0]
        # What one more request like this would reserve, about.
        job = admission.job
        like_nano = (job.prompt_tokens * price.input_nano + admission.output_reserved * price.output_nano) // 1_000
        low_nano = self._settings.low_requests * like_nano
        organisation = job.organisation
        if credit_left_nano < low_nano and organisation not in self._refilling:
            self._refilling.add(organisation)
            self._keep(self._refill(organisation, low_nano))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _open_epoch(self) -> int:
        await self._publisher.publish()  # a Redis that was wiped knows of no revocation
        return await self._treasury.ensure_epoch()

    async def _refill(self, organisation: str, low_nano: int) -> None:
        try:
            await self._treasury.lend(organisation, low_nano)
            await asyncio.sleep(self._settings.refill_ms / 1_000)
        except TROUBLE as error:
            self._log.warning("no refill", organisation=organisation, error=type(error).__name__)
        finally:
            self._refilling.discard(organisation)

    def _join_round(self, organisation: str, needed_nano: int) -> "asyncio.Task[Lent]":
        """All who are short while billing is being asked for their organisation are lent to together when that is over,
        for what they need in sum: asked for each of them, block by block would go to Redis that none of them needs.
        """
        current = self._rounds.get(organisation)
        if current is None:
            current = self._rounds[organisation] = _Round()
            before = self._lending.get(organisation)
            current.task = self._lending[organisation] = self._keep(self._lend_round(organisation, current, before))
        current.needed_nano += needed_nano
        current.least_nano = min(needed_nano, current.least_nano or needed_nano)
        assert current.task is not None
        return current.task

    async def _lend_round(self, organisation: str, current: "_Round", before: "asyncio.Task[Lent] | None") -> Lent:
        if before is None:
            await asyncio.sleep(0)  # the others of this moment join
        else:
            await asyncio.wait((before,))
        del self._rounds[organisation]
        try:
            return await self._treasury.lend(organisation, current.needed_nano, current.least_nano)
        finally:
            if self._lending.get(organisation) is current.task:
                del self._lending[organisation]

    async def _once(self, what: Hashable, work: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """Whoever asks for the same at the same time waits for the same answer."""
        task: asyncio.Task[Answer] | None = self._running.get(what)
        if task is None:
            task = self._running[what] = self._keep(work())
            task.add_done_callback(lambda _: self._running.pop(what, None))
        return await self._within(task)

    async def _within(self, task: "asyncio.Task[Answer]") -> Answer:
        """A caller that leaves does not end it for the others."""
        try:
            async with asyncio.timeout(self._settings.wait_s):
                return await asyncio.shield(task)
        except (TimeoutError, *TROUBLE) as error:
            self._log.warning("billing does not answer", error=type(error).__name__)
            message = "Credit and limits cannot be checked at the moment; try again."
            raise PlatformError(UNAVAILABLE, message, retry_after_s=self._settings.retry_after_s) from error

    def _keep(self, work: Coroutine[Any, Any, Answer]) -> "asyncio.Task[Answer]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has been told

    def _shortage(self, refused: Refused, lent: Lent) -> PlatformError:
        """402 only if nothing but money helps: credit may also wait in open requests, or in an epoch that ends soon."""
        needed_nano = refused.refusal.limit
        if lent.balance_nano < needed_nano <= lent.balance_nano + lent.held_before_nano:
            message = "Redis was restarted and part of the credit is held until its last requests are over; try again."
            return PlatformError(UNAVAILABLE, message, retry_after_s=30)
        return refusal_error(refused, lent.balance_nano)
