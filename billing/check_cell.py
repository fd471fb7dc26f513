"""What gateways admitted and workers counted, against what the ledger booked: the credit held for Redis in SQL is what
Redis has, free and reserved, and what was used and is not collected yet.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass

from redis.asyncio import Redis
from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.accounts import CreditAccount, CreditHold
from billing.check import Findings
from billing.models import UsageRecord
from billing.rollups import lock_books
from billing.transfers import CreditTransfer
from core.db import Database
from core.meter.cell_books import EVENTS_MAX, CellBooks, read_cell

LOOKS = 4
PAUSE_S = 0.25
ORGANISATIONS_MAX = 10_000
PENDING = ("asked", "held")


@dataclass(frozen=True, slots=True)
class Difference:
    """`pending_nano`: on its way between SQL and Redis, so that it may be on either side."""

    held_nano: int
    pending_nano: int
    redis_nano: int
    uncollected_nano: int

    @property
    def excused(self) -> bool:
        return 0 <= self.held_nano - self.redis_nano - self.uncollected_nano <= self.pending_nano


async def check_cell(database: Database, client: Redis, cell: str, findings: Findings) -> None:
    """Each look is one moment of Redis while no usage is booked. Credit may move between the two during a look, so only
    what disagrees in every look is a finding.
    """
    suspects: set[str] | None = None
    for _ in range(LOOKS):
        seen = await _look(database, client, cell)
        if seen is None:
            findings.skipped.append(f"holds: more than {EVENTS_MAX} usage events wait to be collected")
            return
        wrong = {organisation: found for organisation, found in seen.items() if not found.excused}
        if suspects is None:
            findings.saw("organisations", len(seen))
        suspects = set(wrong) if suspects is None else suspects & set(wrong)
        if not suspects:
            return
        await asyncio.sleep(PAUSE_S)
    for organisation in sorted(suspects or ()):
        found = wrong[organisation]
        findings.add(
            "holds",
            f"{organisation}: {found.held_nano} nano are held for Redis, which has {found.redis_nano} and "
            f"{found.uncollected_nano} used and not collected",
        )


async def _look(database: Database, client: Redis, cell: str) -> dict[str, Difference] | None:
    """By organisation; None if too much waits to be collected."""
    loop = asyncio.get_running_loop()

    def in_sql() -> dict[str, Difference] | None:
        with database.unit_of_work() as session:
            lock_books(session)
            organisations = list(
                session.scalars(
                    select(CreditAccount.organisation).order_by(CreditAccount.organisation).limit(ORGANISATIONS_MAX)
                )
            )
            books = asyncio.run_coroutine_threadsafe(read_cell(client, cell, organisations), loop).result()
            return _compare(session, books)

    return await asyncio.to_thread(in_sql)


def _compare(session: Session, books: CellBooks) -> dict[str, Difference] | None:
    if books.uncollected is None:
        return None
    held = select(CreditHold.organisation, CreditHold.held_nano).where(CreditHold.epoch == books.epoch)
    held_nano = {row[0]: row[1] for row in session.execute(held)}
    pending_nano: dict[str, int] = defaultdict(int)
    moving = select(CreditTransfer.organisation, CreditTransfer.amount_nano).where(
        CreditTransfer.epoch == books.epoch, CreditTransfer.state.in_(PENDING)
    )
    for organisation, amount_nano in session.execute(moving):
        pending_nano[organisation] += amount_nano
    uncollected_nano: dict[str, int] = defaultdict(int)
    events = {event.request_id: event for event in books.uncollected if event.epoch == books.epoch}
    for request_id in _collected(session, list(events)):
        del events[request_id]
    for event in events.values():
        uncollected_nano[event.organisation] += event.cost_nano
    return {
        organisation: Difference(
            held_nano.get(organisation, 0),
            pending_nano.get(organisation, 0),
            redis_nano,
            uncollected_nano.get(organisation, 0),
        )
        for organisation, redis_nano in books.credit_nano.items()
    }


def _collected(session: Session, request_ids: list[str]) -> list[str]:
    """Those that are in SQL already, and only wait to be acknowledged."""
    found: list[str] = []
    for at in range(0, len(request_ids), 1_000):
        part = request_ids[at : at + 1_000]
        found += session.scalars(select(UsageRecord.request_id).where(UsageRecord.request_id.in_(part)))
    return found
