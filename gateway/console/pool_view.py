"""What the page of pools shows, read once for all who look."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.pool_figures import PoolFigures, pool_figures
from billing.pool_rates import PoolRates, pool_rates
from core.errors import UNAVAILABLE, PlatformError
from core.meter.refusals import Reason
from core.pools import LETTERS_READ_MAX, PoolLine
from gateway.accounts.models import Organisation
from gateway.console.desk import Console
from gateway.console.live import EVERY_S
from gateway.console.table import Column, Row
from gateway.desk import QUEUE_AWAY

HOUR_MS = 3_600_000
MS_PER_S = 1_000
FRESH_S = EVERY_S * 0.9
FIGURES_FRESH_S = 10.0  # quarters of an hour do not change faster than one can see
LETTER_COLUMNS = (
    Column("lost_ms", "Lost", "time"),
    Column("request_id", "Request"),
    Column("tier", "Tier"),
    Column("organisation", "Organisation"),
    Column("actions", "", "cell", lambda _: "", sortable=False),
)


@dataclass(frozen=True, slots=True)
class TierView:
    """`refused`: rule and number, of the last hour, the most frequent first."""

    line: PoolLine
    figures: PoolFigures
    rates: PoolRates
    refused: Sequence[tuple[str, int]]

    @property
    def slots(self) -> int:
        return sum(worker.slots for worker in self.line.workers)

    @property
    def held(self) -> int:
        return sum(worker.held for worker in self.line.workers)


@dataclass(frozen=True, slots=True)
class PoolsView:
    """`wrong`: by code, refused for what the request itself was, whatever its tier."""

    tiers: Sequence[TierView]
    workers: Sequence[Row]
    dead_letters: int
    wrong: Sequence[tuple[str, int]]


@dataclass(slots=True)
class _Kept:
    until_s: float = -1.0
    value: Any = field(default=None)


class PoolView:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._services = console.services
        self.tiers = [tier.name for tier in console.services.catalog.tiers]
        self._figures = _Kept()
        self._view = _Kept()

    async def read(self) -> PoolsView:
        """Not older than a look ago. Raises PlatformError (UNAVAILABLE) when Redis or SQL is away."""
        now_s = self._services.clock.monotonic_s()
        if now_s >= self._view.until_s:
            self._view = _Kept(now_s + FRESH_S, await self._read())
        found: PoolsView = self._view.value
        return found

    async def letters(self) -> list[Row]:
        """Youngest first."""
        try:
            found = await self._services.pools.dead_letters(LETTERS_READ_MAX)
        except QUEUE_AWAY as error:
            raise _away() from error
        ids = {letter.organisation for letter in found}

        def names_of(session: Session) -> dict[str, str]:
            query = select(Organisation.id, Organisation.name).where(Organisation.id.in_(ids))
            return {row[0]: row[1] for row in session.execute(query)}

        names = await self._console.read(names_of) if ids else {}
        return [
            {
                "id": letter.letter_id,
                "lost_ms": letter.lost_ms,
                "request_id": letter.request_id,
                "tier": letter.tier,
                "organisation": names.get(letter.organisation, letter.organisation),
                "runnable": letter.runnable,
            }
            for letter in found
        ]

    async def _read(self) -> PoolsView:
        now_ms = self._services.clock.now_ms()
        try:
            overview = await self._services.pools.overview(self.tiers)
            refused = await self._services.refusals.tally(now_ms - HOUR_MS)
        except QUEUE_AWAY as error:
            raise _away() from error
        figures, rates = await self._measured(now_ms)
        tiers = [
            TierView(overview.tiers[tier], figures[tier], rates[tier], _refused(refused, tier)) for tier in self.tiers
        ]
        workers = [row for each in tiers for row in _workers(each.line)]
        return PoolsView(tiers, workers, overview.dead_letters, _refused(refused, ""))

    async def _measured(self, now_ms: int) -> tuple[dict[str, PoolFigures], dict[str, PoolRates]]:
        now_s = self._services.clock.monotonic_s()
        if now_s >= self._figures.until_s:

            def run(session: Session) -> tuple[dict[str, PoolFigures], dict[str, PoolRates]]:
                figures = pool_figures(session, self.tiers, now_ms - HOUR_MS, now_ms)
                return figures, pool_rates(session, self.tiers, now_ms)

            self._figures = _Kept(now_s + FIGURES_FRESH_S, await self._console.read(run))
        found: tuple[dict[str, PoolFigures], dict[str, PoolRates]] = self._figures.value
        return found


def _workers(line: PoolLine) -> list[Row]:
    return [
        {
            "worker": worker.worker_id,
            "tier": line.tier,
            "slots": worker.slots,
            "held": worker.held,
            "lease_s": -(-worker.lease_left_ms // MS_PER_S),
            "state": "drained" if worker.drained else "tier drained" if line.drained else "working",
            "drained": worker.drained,
        }
        for worker in line.workers
    ]


def _refused(refused: dict[Reason, int], tier: str) -> list[tuple[str, int]]:
    found = [(rule, count) for (name, rule), count in refused.items() if name == tier]
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))


def _away() -> PlatformError:
    return PlatformError(UNAVAILABLE, "Redis does not answer at the moment.", retry_after_s=2)
