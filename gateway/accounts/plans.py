"""Plans: what an organisation on one gets: its share in the queue, its first credit, its limits. The operator's.

They are seeded from tramontane.toml once; from then on SQL is the truth. A plan is named by its name, for good, and is
never deleted. Functions take a unit of work's session and never commit.
"""

import tomllib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from billing.money import check_amount
from core.catalog import Catalog, read_catalog
from core.catalog import Plan as CatalogPlan
from core.clock import Clock
from core.db import insert_new
from core.errors import NOT_FOUND, VALIDATION, PlatformError, SetupError
from core.ids import IdSource
from core.queue.rules import RuleKind
from gateway.accounts.generations import Change, Generation, raise_generations_of_plan
from gateway.accounts.limits import LIMITS_MAX, VALUE_MAX, LimitTerms, SubjectKind
from gateway.accounts.models import Limit, Plan
from gateway.accounts.names import checked_name
from gateway.accounts.organisations import ID_BYTES
from gateway.accounts.terms import checked_tier
from gateway.accounts.trail import Actor, Target, record

WEIGHT_MAX = 1_000
PLANS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class PlanTerms:
    """All of a plan. `credit_nano` is given once, to organisations that begin with the plan."""

    name: str
    credit_nano: int
    weight: int
    limits: tuple[LimitTerms, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class PlanChange:
    """`before` None: there was no such plan."""

    before: PlanTerms | None
    after: PlanTerms


class _PlanFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    plans: dict[str, CatalogPlan] = Field(min_length=1, max_length=PLANS_MAX)


def list_plans(session: Session, *, offset: int = 0, count: int | None = None) -> list[PlanTerms]:
    """By name."""
    return _terms(session, list(session.scalars(select(Plan).order_by(Plan.name).offset(offset).limit(count))))


def find_plan(session: Session, name: str) -> PlanTerms:
    """Raises PlatformError (NOT_FOUND)."""
    plan = session.get(Plan, name)
    if plan is None:
        raise PlatformError(NOT_FOUND, f"There is no plan {name!r}.")
    return _terms(session, [plan])[0]


def catalog_plans(catalog: Catalog) -> tuple[PlanTerms, ...]:
    return _of_file(catalog.plans)


def read_plan_file(path: Path) -> tuple[PlanTerms, ...]:
    """The [plans.NAME] tables of a tramontane.toml, or of a file that has nothing else. Raises SetupError with one
    sentence that names the place.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        return catalog_plans(read_catalog(path)) if "tiers" in raw else _of_file(_PlanFile.model_validate(raw).plans)
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} is not valid TOML: {error}.") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise SetupError(f"{path}: {place}: {first['msg']}.") from error


def plans_that_differ(session: Session, wanted: Iterable[PlanTerms]) -> tuple[PlanChange, ...]:
    """Of these plans; those that SQL has besides are no difference."""
    kept = {plan.name: plan for plan in list_plans(session)}
    changes = (PlanChange(kept.get(terms.name), _in_order(terms)) for terms in wanted)
    return tuple(change for change in changes if change.before != change.after)


def put_plan(
    session: Session,
    terms: PlanTerms,
    *,
    known_tiers: Collection[str],
    actor: Actor,
    clock: Clock,
    ids: IdSource,
) -> Change:
    """Make it, or give it these terms and no others: limits that are not named end. Limits and weight count at once
    for every organisation on it. Raises PlatformError (VALIDATION).
    """
    terms = _checked(terms, known_tiers)
    now_ms = clock.now_ms()
    # Made first, so that of two who make it at once the second changes what the first made.
    insert_new(session, Plan, [{"name": terms.name, "credit_nano": -1, "weight": 0}], ["name"])
    query = select(Plan).where(Plan.name == terms.name).with_for_update()
    plan = session.scalars(query.execution_options(populate_existing=True)).one()
    before = None if plan.weight == 0 else _terms(session, [plan])[0]
    if before == terms:
        return Change(plan.name, ())
    plan.credit_nano, plan.weight = terms.credit_nano, terms.weight
    session.flush()
    kept = set() if before is None else set(before.limits)
    _replace_limits(session, terms, kept, now_ms, ids)
    record(
        session,
        actor,
        "plan.create" if before is None else "plan.change",
        Target("plan", plan.name),
        organisation="",
        now_ms=now_ms,
        before=None if before is None else asdict(before),
        after=asdict(terms),
    )
    return Change(plan.name, raise_generations_of_plan(session, plan.name))


def apply_plans(
    session: Session,
    wanted: Sequence[PlanTerms],
    *,
    known_tiers: Collection[str],
    actor: Actor,
    clock: Clock,
    ids: IdSource,
) -> tuple[tuple[PlanChange, ...], tuple[Generation, ...]]:
    """Make each plan as it is wanted: what was different, and what to publish after the commit. Twice does no harm."""
    changes = plans_that_differ(session, wanted)
    raised: list[Generation] = []
    for change in changes:
        done = put_plan(session, change.after, known_tiers=known_tiers, actor=actor, clock=clock, ids=ids)
        raised += done.publish
    return changes, tuple(raised)


def _replace_limits(
    session: Session, terms: PlanTerms, kept: Collection[LimitTerms], now_ms: int, ids: IdSource
) -> None:
    """Those that stay as they are keep their ids."""
    of_plan = (Limit.subject_kind == SubjectKind.PLAN.value, Limit.subject_id == terms.name)
    for gone in set(kept) - set(terms.limits):
        session.execute(
            delete(Limit).where(*of_plan, Limit.tier == gone.tier, Limit.kind == gone.kind, Limit.hard == gone.hard)
        )
    session.add_all(
        Limit(
            id=ids.token(ID_BYTES),
            subject_kind=SubjectKind.PLAN.value,
            subject_id=terms.name,
            tier=limit.tier,
            kind=limit.kind.value,
            value=limit.value,
            hard=limit.hard,
            created_ms=now_ms,
        )
        for limit in terms.limits
        if limit not in kept
    )
    session.flush()


def _checked(terms: PlanTerms, known_tiers: Collection[str]) -> PlanTerms:
    checked_name(terms.name)
    check_amount(terms.credit_nano, param="credit")
    if not 1 <= terms.weight <= WEIGHT_MAX:
        raise PlatformError(VALIDATION, f"A weight is 1 to {WEIGHT_MAX}.", param="weight")
    if len(terms.limits) > LIMITS_MAX:
        raise PlatformError(VALIDATION, f"A plan has at most {LIMITS_MAX} limits.", param="limits")
    if len({(limit.tier, limit.kind, limit.hard) for limit in terms.limits}) < len(terms.limits):
        raise PlatformError(VALIDATION, "Two limits are of the same kind, tier and hardness.", param="limits")
    for limit in terms.limits:
        if not 0 <= limit.value <= VALUE_MAX:
            raise PlatformError(VALIDATION, f"A limit is a whole number from 0 to {VALUE_MAX}.", param="limits")
        if limit.tier:
            checked_tier(limit.tier, known_tiers)
    return _in_order(terms)


def _of_file(plans: dict[str, CatalogPlan]) -> tuple[PlanTerms, ...]:
    return tuple(
        _in_order(
            PlanTerms(
                name,
                plan.credit_nano,
                plan.weight,
                tuple(LimitTerms(kind, value) for kind, value in plan.limits.items()),
            )
        )
        for name, plan in plans.items()
    )


def _terms(session: Session, plans: Sequence[Plan]) -> list[PlanTerms]:
    query = select(Limit).where(
        Limit.subject_kind == SubjectKind.PLAN.value, Limit.subject_id.in_([plan.name for plan in plans])
    )
    limits: dict[str, list[LimitTerms]] = {plan.name: [] for plan in plans}
    for limit in session.scalars(query):
        limits[limit.subject_id].append(LimitTerms(RuleKind(limit.kind), limit.value, limit.tier, limit.hard))
    found = (PlanTerms(plan.name, plan.credit_nano, plan.weight, tuple(limits[plan.name])) for plan in plans)
    return [_in_order(terms) for terms in found]


def _in_order(terms: PlanTerms) -> PlanTerms:
    """Equal terms are equal values."""
    limits = tuple(sorted(terms.limits, key=_order))
    return PlanTerms(terms.name, terms.credit_nano, terms.weight, limits)


def _order(limit: LimitTerms) -> tuple[Any, ...]:
    return list(RuleKind).index(limit.kind), limit.tier, not limit.hard, limit.value
