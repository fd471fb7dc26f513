"""What a fresh installation starts with, in SQL, and what every gateway tells Redis at its start."""

import asyncio
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.catalog import Catalog
from core.catalog import Plan as CatalogPlan
from core.clock import Clock
from core.db import Database, insert_new
from core.ids import IdSource
from core.queue.base import QueueKeeper
from gateway.accounts.models import Organisation, Plan, Workspace

DEFAULT_NAME = "default"
DEFAULT_PLAN = "development"
FIRST_GENERATION = 1
_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Seeded:
    """`plans_that_differ`: in the file they are not what SQL has, and SQL counts."""

    organisation: str
    workspace: str
    plans_that_differ: tuple[str, ...]


def ensure_default(session: Session, catalog: Catalog, *, clock: Clock, ids: IdSource) -> Seeded:
    """Plans of the file if there are none yet, then organisation and workspace `default`. Twice does no harm."""
    if session.scalars(select(Plan.name).limit(1)).first() is None:
        rows = [_plan_row(name, plan) for name, plan in catalog.plans.items()]
        insert_new(session, Plan, rows, ["name"])
    organisation = {
        "id": ids.token(_ID_BYTES),
        "name": DEFAULT_NAME,
        "plan": DEFAULT_PLAN,
        "generation": FIRST_GENERATION,
        "created_ms": clock.now_ms(),
    }
    insert_new(session, Organisation, [organisation], ["name"])
    organisation_id = session.scalars(select(Organisation.id).where(Organisation.name == DEFAULT_NAME)).one()
    workspace = {
        "id": ids.token(_ID_BYTES),
        "organisation_id": organisation_id,
        "name": DEFAULT_NAME,
        "created_ms": clock.now_ms(),
    }
    insert_new(session, Workspace, [workspace], ["organisation_id", "name"])
    workspace_id = session.scalars(
        select(Workspace.id).where(Workspace.organisation_id == organisation_id, Workspace.name == DEFAULT_NAME)
    ).one()
    return Seeded(organisation_id, workspace_id, _plans_that_differ(session, catalog))


async def seed_platform(database: Database, keeper: QueueKeeper) -> None:
    """Give every organisation its plan's credit, once, and publish its generation."""
    for organisation_id, generation, credit_nano in await asyncio.to_thread(_organisations, database):
        await keeper.seed_credit(organisation_id, credit_nano)
        await keeper.set_generation(organisation_id, generation)


def _organisations(database: Database) -> list[tuple[str, int, int]]:
    query = select(Organisation.id, Organisation.generation, Plan.credit_nano).join(
        Plan, Plan.name == Organisation.plan
    )
    with database.reading() as session:
        return [(row[0], row[1], row[2]) for row in session.execute(query)]


def _plan_row(name: str, plan: CatalogPlan) -> dict[str, str | int]:
    return {
        "name": name,
        "requests_per_minute": plan.requests_per_minute,
        "tokens_per_minute": plan.tokens_per_minute,
        "concurrency": plan.concurrency,
        "credit_nano": plan.credit_nano,
        "weight": plan.weight,
    }


def _plans_that_differ(session: Session, catalog: Catalog) -> tuple[str, ...]:
    kept = {
        plan.name: {column.key: getattr(plan, column.key) for column in Plan.__mapper__.columns}
        for plan in session.scalars(select(Plan))
    }
    wanted = {name: _plan_row(name, plan) for name, plan in catalog.plans.items()}
    return tuple(sorted(name for name in kept.keys() | wanted.keys() if kept.get(name) != wanted.get(name)))
