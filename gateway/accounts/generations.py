"""The number of an organisation that rises with each administrative change, so that no cached principal outlives it."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from core.queue.base import QueueKeeper
from gateway.accounts.models import Organisation

TOLD_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Generation:
    organisation: str
    number: int


@dataclass(frozen=True, slots=True)
class Change:
    """`id` of what was made or changed. After the commit, and only then, `publish` goes to `publish_generations`."""

    id: str
    publish: tuple[Generation, ...]


def raise_generation(session: Session, organisation_id: str) -> Generation:
    """Counted by the database, so that two changes at once raise it twice."""
    number = session.execute(
        update(Organisation)
        .where(Organisation.id == organisation_id)
        .values(generation=Organisation.generation + 1)
        .returning(Organisation.generation)
        .execution_options(synchronize_session=False)
    ).scalar_one()
    return Generation(organisation_id, number)


def raise_generations_of_plan(session: Session, plan: str) -> tuple[Generation, ...]:
    """Of every organisation on it."""
    ids = session.scalars(select(Organisation.id).where(Organisation.plan == plan).order_by(Organisation.id))
    return tuple(raise_generation(session, organisation_id) for organisation_id in ids.all())


def generation_of(session: Session, organisation_id: str) -> Generation:
    """As it stands: for a change that was made before and may not have been published."""
    number = session.execute(select(Organisation.generation).where(Organisation.id == organisation_id)).scalar_one()
    return Generation(organisation_id, number)


def all_generations(session: Session) -> list[Generation]:
    return [Generation(row[0], row[1]) for row in session.execute(select(Organisation.id, Organisation.generation))]


async def publish_generations(keeper: QueueKeeper, generations: Iterable[Generation]) -> None:
    """Redis keeps the highest number that it was told: repeating this, or an older one coming late, does no harm. At
    most TOLD_AT_ONCE are on their way at a time.
    """
    waiting = list(generations)
    for start in range(0, len(waiting), TOLD_AT_ONCE):
        part = waiting[start : start + TOLD_AT_ONCE]
        await asyncio.gather(*(keeper.set_generation(each.organisation, each.number) for each in part))
