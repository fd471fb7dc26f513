"""Limits of plans, organisations, workspaces and keys: set, taken away, listed.

Subjects, and who may set them: `plan` and `organisation` (which overrides its plan) are the operator's; `customer` is
what an organisation sets for itself, and only ever tightens; `workspace` and `key` add to all of these. `within` as in
api_keys.py.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Select, and_, false, func, or_, select
from sqlalchemy.orm import Session

from core.clock import Clock
from core.errors import CONFLICT, NOT_ALLOWED, NOT_FOUND, VALIDATION, PlatformError
from core.ids import IdSource
from core.queue.rules import RuleKind
from gateway.accounts.api_keys import find_key
from gateway.accounts.generations import Change, Generation, generation_of, raise_generation, raise_generations_of_plan
from gateway.accounts.models import Limit, Organisation, Plan, Workspace
from gateway.accounts.organisations import ID_BYTES
from gateway.accounts.terms import checked_tier
from gateway.accounts.trail import Actor, Target, record
from gateway.accounts.workspaces import find_workspace

VALUE_MAX = 2**52  # Lua counts in doubles
LIMITS_MAX = 64  # of one subject: each is looked at by each admission


class SubjectKind(StrEnum):
    PLAN = "plan"
    ORGANISATION = "organisation"
    CUSTOMER = "customer"
    WORKSPACE = "workspace"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class Subject:
    """`id` is the plan's name or the id of an organisation (of `customer`, too), workspace or key."""

    kind: SubjectKind
    id: str


@dataclass(frozen=True, slots=True)
class LimitTerms:
    """`value` 0 lets nothing through; spending is in nano-units. A soft limit (`hard` False) refuses nothing."""

    kind: RuleKind
    value: int
    tier: str = ""
    hard: bool = True


def set_limit(
    session: Session,
    subject: Subject,
    terms: LimitTerms,
    *,
    within: str | None,
    known_tiers: Collection[str],
    actor: Actor,
    clock: Clock,
    ids: IdSource,
) -> Change:
    """Make it, or give the one of the same tier, kind and hardness another value."""
    if not 0 <= terms.value <= VALUE_MAX:
        raise PlatformError(VALIDATION, f"A limit is a whole number from 0 to {VALUE_MAX}.", param="value")
    if terms.tier:
        checked_tier(terms.tier, known_tiers)
    owner = _owner(session, subject, within)
    limit = session.scalars(
        _of(subject).where(Limit.tier == terms.tier, Limit.kind == terms.kind.value, Limit.hard == terms.hard)
    ).one_or_none()
    before = None if limit is None else _values(limit)
    if limit is None:
        _check_room(session, subject)
        limit = Limit(
            id=ids.token(ID_BYTES),
            subject_kind=subject.kind.value,
            subject_id=subject.id,
            tier=terms.tier,
            kind=terms.kind.value,
            hard=terms.hard,
            created_ms=clock.now_ms(),
        )
        session.add(limit)
    limit.value = terms.value
    session.flush()
    after = _values(limit)
    if before == after:
        return Change(limit.id, _published(session, subject, owner))
    _record(session, actor, "limit.set", limit, owner, clock, before, after)
    return Change(limit.id, _raised(session, subject, owner))


def remove_limit(session: Session, limit_id: str, *, within: str | None, actor: Actor, clock: Clock) -> Change:
    """Raises PlatformError (NOT_FOUND)."""
    limit = session.get(Limit, limit_id)
    if limit is None:
        raise PlatformError(NOT_FOUND, f"There is no limit {limit_id!r}.")
    subject = Subject(SubjectKind(limit.subject_kind), limit.subject_id)
    try:
        owner = _owner(session, subject, within)
    except PlatformError as error:
        if error.kind is not NOT_FOUND:
            raise
        raise PlatformError(NOT_FOUND, f"There is no limit {limit_id!r}.") from error
    before = _values(limit)
    session.delete(limit)
    session.flush()
    _record(session, actor, "limit.remove", limit, owner, clock, before, None)
    return Change(limit_id, _raised(session, subject, owner))


def list_limits(session: Session, subject: Subject, *, within: str | None) -> list[Limit]:
    """Those set for exactly this subject; what applies to a key in the end is `rules.effective_rules`."""
    _owner(session, subject, within, reading=True)
    return list(session.scalars(_of(subject).order_by(Limit.kind, Limit.tier, Limit.hard.desc())))


def limits_of(session: Session, subjects: Collection[Subject]) -> list[Limit]:
    """Those of all these subjects, in one query. Whose they are is the caller's to know."""
    wanted = (and_(Limit.subject_kind == each.kind.value, Limit.subject_id == each.id) for each in subjects)
    return list(session.scalars(select(Limit).where(or_(false(), *wanted))))


def _owner(session: Session, subject: Subject, within: str | None, *, reading: bool = False) -> str:
    """The organisation behind a subject, empty for a plan. Raises PlatformError: NOT_FOUND, NOT_ALLOWED."""
    if subject.kind is SubjectKind.KEY:
        workspace_id = find_key(session, subject.id, within=within).workspace_id
        return session.get_one(Workspace, workspace_id).organisation_id
    if subject.kind is SubjectKind.WORKSPACE:
        found = find_workspace(session, subject.id, within=within)
        if found.id != subject.id:
            raise PlatformError(NOT_FOUND, f"There is no workspace with the id {subject.id!r}.")
        return found.organisation_id
    if subject.kind is SubjectKind.PLAN:
        if session.get(Plan, subject.id) is None:
            raise PlatformError(NOT_FOUND, f"There is no plan {subject.id!r}.")
    elif within not in {None, subject.id} or session.get(Organisation, subject.id) is None:
        raise PlatformError(NOT_FOUND, f"There is no organisation {subject.id!r}.")
    if within is not None and subject.kind is not SubjectKind.CUSTOMER and not reading:
        raise PlatformError(NOT_ALLOWED, f"Limits of a {subject.kind.value} are the operator's.")
    return "" if subject.kind is SubjectKind.PLAN else subject.id


def _check_room(session: Session, subject: Subject) -> None:
    present = session.execute(select(func.count()).select_from(_of(subject).subquery())).scalar_one()
    if present >= LIMITS_MAX:
        raise PlatformError(CONFLICT, f"A {subject.kind.value} has at most {LIMITS_MAX} limits.")


def _of(subject: Subject) -> Select[Limit]:
    return select(Limit).where(Limit.subject_kind == subject.kind.value, Limit.subject_id == subject.id)


def _values(limit: Limit) -> dict[str, object]:
    return {
        "subject_kind": limit.subject_kind,
        "subject_id": limit.subject_id,
        "tier": limit.tier,
        "kind": limit.kind,
        "value": limit.value,
        "hard": limit.hard,
    }


def _record(
    session: Session,
    actor: Actor,
    action: str,
    limit: Limit,
    owner: str,
    clock: Clock,
    before: dict[str, object] | None,
    after: dict[str, object] | None,
) -> None:
    target = Target("limit", limit.id)
    now_ms = clock.now_ms()
    record(session, actor, action, target, organisation=owner, now_ms=now_ms, before=before, after=after)


def _raised(session: Session, subject: Subject, owner: str) -> tuple[Generation, ...]:
    if subject.kind is SubjectKind.PLAN:
        return raise_generations_of_plan(session, subject.id)
    return (raise_generation(session, owner),)


def _published(session: Session, subject: Subject, owner: str) -> tuple[Generation, ...]:
    if subject.kind is SubjectKind.PLAN:
        on_plan = session.scalars(select(Organisation.id).where(Organisation.plan == subject.id)).all()
        return tuple(generation_of(session, organisation) for organisation in on_plan)
    return (generation_of(session, owner),)
