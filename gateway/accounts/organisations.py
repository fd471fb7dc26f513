"""Organisations: made, renamed, put on a plan, suspended. Functions take a unit of work's session and never commit.

An organisation is named by its id, as a principal carries it; `find_organisation` is for what a person typed.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.clock import Clock
from core.errors import NOT_FOUND, PlatformError
from core.ids import IdSource
from gateway.accounts.changes import change_fields
from gateway.accounts.generations import Change, Generation
from gateway.accounts.models import ACTIVE, SUSPENDED, Organisation, Plan, Workspace
from gateway.accounts.names import checked_name, flush_named
from gateway.accounts.trail import Actor, Target, record

DEFAULT_NAME = "default"
DEFAULT_PLAN = "development"
FIRST_GENERATION = 1
ID_BYTES = 16


def create_organisation(
    session: Session,
    name: str,
    *,
    actor: Actor,
    clock: Clock,
    ids: IdSource,
    plan: str = DEFAULT_PLAN,
    lenient: bool = False,
) -> Change:
    """With its default workspace. Its customer and its first credit are billing's: whoever calls this sees to them."""
    if session.get(Plan, plan) is None:
        raise PlatformError(NOT_FOUND, f"There is no plan {plan!r}.", param="plan")
    now_ms = clock.now_ms()
    made = Organisation(
        id=ids.token(ID_BYTES),
        name=checked_name(name),
        plan=plan,
        status=ACTIVE,
        lenient=lenient,
        generation=FIRST_GENERATION,
        created_ms=now_ms,
    )
    session.add(made)
    flush_named(session, name)
    session.add(default_workspace(made.id, now_ms, ids))
    after = {"name": name, "plan": plan, "lenient": lenient}
    target = Target("organisation", made.id)
    record(session, actor, "organisation.create", target, organisation=made.id, now_ms=now_ms, after=after)
    return Change(made.id, (Generation(made.id, FIRST_GENERATION),))


def default_workspace(organisation_id: str, now_ms: int, ids: IdSource) -> Workspace:
    return Workspace(
        id=ids.token(ID_BYTES),
        organisation_id=organisation_id,
        name=DEFAULT_NAME,
        is_default=True,
        lenient=None,
        created_ms=now_ms,
        archived_ms=None,
    )


def find_organisation(session: Session, name_or_id: str) -> Organisation:
    """By id, else by name. Raises PlatformError (NOT_FOUND)."""
    found = session.get(Organisation, name_or_id)
    found = found or session.scalars(select(Organisation).where(Organisation.name == name_or_id)).one_or_none()
    if found is None:
        raise PlatformError(NOT_FOUND, f"There is no organisation {name_or_id!r}.")
    return found


def list_organisations(session: Session, *, offset: int = 0, count: int | None = None) -> list[Organisation]:
    """Oldest first."""
    query = select(Organisation).order_by(Organisation.created_ms, Organisation.id).offset(offset).limit(count)
    return list(session.scalars(query))


def rename_organisation(session: Session, organisation: str, name: str, *, actor: Actor, clock: Clock) -> Change:
    return _change(session, organisation, "rename", {"name": checked_name(name)}, actor, clock)


def set_organisation_lenient(
    session: Session, organisation: str, lenient: bool, *, actor: Actor, clock: Clock
) -> Change:
    return _change(session, organisation, "set_lenient", {"lenient": lenient}, actor, clock)


def change_plan(session: Session, organisation: str, plan: str, *, actor: Actor, clock: Clock) -> Change:
    """Limits, weight and prices follow at once; credit that the old plan gave stays."""
    if session.get(Plan, plan) is None:
        raise PlatformError(NOT_FOUND, f"There is no plan {plan!r}.", param="plan")
    return _change(session, organisation, "change_plan", {"plan": plan}, actor, clock)


def suspend_organisation(session: Session, organisation: str, *, actor: Actor, clock: Clock) -> Change:
    """None of its keys is valid until it is resumed; open streams end."""
    return _change(session, organisation, "suspend", {"status": SUSPENDED}, actor, clock)


def resume_organisation(session: Session, organisation: str, *, actor: Actor, clock: Clock) -> Change:
    return _change(session, organisation, "resume", {"status": ACTIVE}, actor, clock)


def _change(
    session: Session, organisation_id: str, verb: str, values: dict[str, object], actor: Actor, clock: Clock
) -> Change:
    organisation = session.get(Organisation, organisation_id)
    if organisation is None:
        raise PlatformError(NOT_FOUND, f"There is no organisation {organisation_id!r}.")
    return change_fields(session, organisation, verb, values, actor, clock)
