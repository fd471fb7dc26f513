"""What a fresh installation starts with, in SQL."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.catalog import Catalog
from core.clock import Clock
from core.db import insert_new
from core.ids import IdSource
from gateway.accounts.limits import SubjectKind
from gateway.accounts.models import ACTIVE, Limit, Organisation, Plan, Workspace
from gateway.accounts.organisations import DEFAULT_NAME, DEFAULT_PLAN, FIRST_GENERATION, ID_BYTES
from gateway.accounts.plans import catalog_plans, plans_that_differ
from gateway.accounts.workspaces import default_workspace_of

_OLDEST = select(Organisation.id).order_by(Organisation.created_ms, Organisation.id).limit(1)
LIMIT_UNIQUE = ("subject_kind", "subject_id", "tier", "kind", "hard")


@dataclass(frozen=True, slots=True)
class Seeded:
    """The oldest organisation and its default workspace. `plans_that_differ`: in the file they are not what SQL has,
    and SQL counts.
    """

    organisation: str
    workspace: str
    plans_that_differ: tuple[str, ...]


def ensure_default(session: Session, catalog: Catalog, *, clock: Clock, ids: IdSource) -> Seeded:
    """Plans of the file if there are none yet, then an organisation and its workspace, both `default`, if there is
    none. Twice does no harm.
    """
    if session.scalars(select(Plan.name).limit(1)).first() is None:
        _seed_plans(session, catalog, clock.now_ms(), ids)
    if session.scalars(_OLDEST).first() is None:
        _seed_organisation(session, clock.now_ms(), ids)
    organisation_id = default_organisation_id(session)
    workspace_id = default_workspace_of(session, organisation_id)
    differing = plans_that_differ(session, catalog_plans(catalog))
    return Seeded(organisation_id, workspace_id, tuple(sorted(change.after.name for change in differing)))


def default_organisation_id(session: Session) -> str:
    """The oldest: where a key goes of which nobody said more."""
    return session.scalars(_OLDEST).one()


def _seed_plans(session: Session, catalog: Catalog, now_ms: int, ids: IdSource) -> None:
    """Another process may do the same now: what is there already stays."""
    plans = [
        {"name": name, "credit_nano": plan.credit_nano, "weight": plan.weight} for name, plan in catalog.plans.items()
    ]
    insert_new(session, Plan, plans, ["name"])
    limits = [
        {
            "id": ids.token(ID_BYTES),
            "subject_kind": SubjectKind.PLAN.value,
            "subject_id": name,
            "tier": "",
            "kind": kind.value,
            "value": value,
            "hard": True,
            "created_ms": now_ms,
        }
        for name, plan in catalog.plans.items()
        for kind, value in plan.limits.items()
    ]
    insert_new(session, Limit, limits, LIMIT_UNIQUE)


def _seed_organisation(session: Session, now_ms: int, ids: IdSource) -> None:
    organisation = {
        "id": ids.token(ID_BYTES),
        "name": DEFAULT_NAME,
        "plan": DEFAULT_PLAN,
        "status": ACTIVE,
        "lenient": False,
        "generation": FIRST_GENERATION,
        "created_ms": now_ms,
    }
    insert_new(session, Organisation, [organisation], ["name"])
    organisation_id = session.scalars(select(Organisation.id).where(Organisation.name == DEFAULT_NAME)).one()
    workspace = {
        "id": ids.token(ID_BYTES),
        "organisation_id": organisation_id,
        "name": DEFAULT_NAME,
        "is_default": True,
        "lenient": None,
        "created_ms": now_ms,
        "archived_ms": None,
    }
    insert_new(session, Workspace, [workspace], ["organisation_id", "name"])
