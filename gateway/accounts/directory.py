"""All organisations of an installation, as its operators look through them: sorted, searched and paged in SQL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, Subquery, cast, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from billing.accounts import CreditAccount
from billing.days import RevenueDay, RevenueMonth, day_start_ms, month_start_ms
from gateway.accounts.models import Organisation
from gateway.accounts.people import Member

IDS_AT_ONCE = 1_000
Revenue = type[RevenueDay] | type[RevenueMonth]


@dataclass(frozen=True, slots=True)
class Listed:
    """One organisation. `spent_nano` of the month and `requests` of the day are UTC's; `members` have a role in it as
    a whole.
    """

    id: str
    name: str
    plan: str
    status: str
    created_ms: int
    balance_nano: int
    limit_nano: int
    spent_nano: int
    requests: int
    members: int


@dataclass(frozen=True, slots=True)
class Directory:
    """One page. `matching` is how many there are on all pages, `total` how many without a filter."""

    rows: tuple[Listed, ...]
    matching: int
    total: int


@dataclass(frozen=True, slots=True)
class DirectoryQuery:
    """`text`: a part of the name, or the whole id. `only`: the one with this id. `sort` is one of SORTS, else the
    name counts.
    """

    text: str = ""
    only: str = ""
    plan: str = ""
    status: str = ""
    sort: str = "name"
    falling: bool = False
    offset: int = 0
    count: int = 50


SORTS = frozenset(("name", "plan", "status", "created_ms", "balance_nano", "spent_nano", "requests", "members"))
_COLUMNS: Mapping[str, InstrumentedAttribute[Any]] = {
    "name": Organisation.name,
    "plan": Organisation.plan,
    "status": Organisation.status,
    "created_ms": Organisation.created_ms,
}


def directory(session: Session, query: DirectoryQuery, now_ms: int) -> Directory:
    """Seven statements, and four more for each IDS_AT_ONCE rows of a longer page."""
    wanted = list(_conditions(query))
    count = select(func.count()).select_from(Organisation)
    total = session.scalars(count).one()
    matching = session.scalars(count.where(*wanted)).one() if wanted else total
    ids = list(session.scalars(_ids(query, wanted, now_ms)))
    rows: list[Listed] = []
    for at in range(0, len(ids), IDS_AT_ONCE):
        part = ids[at : at + IDS_AT_ONCE]
        listed = _listed(session, part, now_ms)
        rows += [listed[each] for each in part if each in listed]
    return Directory(tuple(rows), matching, total)


def organisations_by_plan(session: Session) -> dict[str, int]:
    """How many are on each plan that any is on."""
    query = select(Organisation.plan, func.count()).group_by(Organisation.plan)
    return {row[0]: row[1] for row in session.execute(query)}


def _conditions(query: DirectoryQuery) -> Sequence[ColumnElement[bool]]:
    found = []
    if query.only:
        found.append(Organisation.id == query.only)
    if query.text:
        part = Organisation.name.icontains(query.text, autoescape=True)
        found.append(or_(part, Organisation.id == query.text))
    if query.plan:
        found.append(Organisation.plan == query.plan)
    if query.status:
        found.append(Organisation.status == query.status)
    return found


def _ids(query: DirectoryQuery, wanted: Sequence[ColumnElement[bool]], now_ms: int) -> Select[str]:
    """Which ones are on the page, in their order: with nothing but what they are sorted by, pages far behind stay
    cheap.
    """
    found = select(Organisation.id).where(*wanted)
    by: ColumnElement[Any]
    if query.sort == "balance_nano":
        found = found.outerjoin(CreditAccount, CreditAccount.organisation == Organisation.id)
        by = func.coalesce(CreditAccount.posted_nano, 0)
    elif query.sort in _COLUMNS:
        by = _COLUMNS[query.sort].expression
    else:
        figures = _figures(query.sort, now_ms)
        found = found.outerjoin(figures, figures.c.organisation == Organisation.id)
        by = func.coalesce(figures.c.figure, 0)
    order = by.desc() if query.falling else by.asc()
    return found.order_by(order, Organisation.id).offset(query.offset).limit(query.count)


def _listed(session: Session, ids: Sequence[str], now_ms: int) -> dict[str, Listed]:
    """At most IDS_AT_ONCE."""
    month, day = month_start_ms(now_ms), day_start_ms(now_ms)
    spent = _sums(session, RevenueMonth, month, RevenueMonth.cost_nano, ids)
    requests = _sums(session, RevenueDay, day, RevenueDay.requests, ids)
    counted = select(Member.organisation_id, func.count()).group_by(Member.organisation_id)
    members = {row[0]: row[1] for row in session.execute(counted.where(Member.organisation_id.in_(ids)))}
    query = (
        select(Organisation, CreditAccount.posted_nano, CreditAccount.limit_nano)
        .outerjoin(CreditAccount, CreditAccount.organisation == Organisation.id)
        .where(Organisation.id.in_(ids))
    )
    return {
        found.id: Listed(
            id=found.id,
            name=found.name,
            plan=found.plan,
            status=found.status,
            created_ms=found.created_ms,
            balance_nano=posted_nano or 0,
            limit_nano=limit_nano or 0,
            spent_nano=spent.get(found.id, 0),
            requests=requests.get(found.id, 0),
            members=members.get(found.id, 0),
        )
        for found, posted_nano, limit_nano in session.execute(query)
    }


def _figures(sort: str, now_ms: int) -> Subquery:
    """What is sorted by where it is no column of the organisation: one figure for each that has any."""
    if sort == "members":
        query = select(Member.organisation_id.label("organisation"), func.count().label("figure"))
        return query.group_by(Member.organisation_id).subquery()
    if sort == "spent_nano":
        return _summed(RevenueMonth, month_start_ms(now_ms), RevenueMonth.cost_nano).subquery()
    return _summed(RevenueDay, day_start_ms(now_ms), RevenueDay.requests).subquery()


def _sums(
    session: Session, model: Revenue, start_ms: int, counted: InstrumentedAttribute[int], ids: Sequence[str]
) -> dict[str, int]:
    query = _summed(model, start_ms, counted).where(model.tier.in_(_tiers(model, start_ms)))
    return {row[0]: row[1] for row in session.execute(query.where(model.organisation.in_(ids)))}


def _summed(model: Revenue, start_ms: int, counted: InstrumentedAttribute[int]) -> Select[str, int]:
    columns = (model.organisation.label("organisation"), cast(func.sum(counted), BigInteger).label("figure"))
    return select(*columns).where(model.start_ms == start_ms).group_by(model.organisation)


def _tiers(model: Revenue, start_ms: int) -> Select[str | None]:
    """Those that any row tells of, one look into the index for each: they come before organisations in it."""
    known = select(func.min(model.tier).label("tier")).where(model.start_ms == start_ms).cte("known", recursive=True)
    following = select(func.min(model.tier)).where(model.start_ms == start_ms, model.tier > known.c.tier)
    known = known.union_all(select(following.scalar_subquery()).where(known.c.tier.is_not(None)))
    return select(known.c.tier).where(known.c.tier.is_not(None))
