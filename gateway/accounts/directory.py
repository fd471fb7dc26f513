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
    "balance_nano": CreditAccount.posted_nano,
}


def directory(session: Session, query: DirectoryQuery, now_ms: int) -> Directory:
    """A fixed number of statements, however many organisations there are."""
    wanted = list(_conditions(query))
    count = select(func.count()).select_from(Organisation)
    total = session.scalars(count).one()
    matching = session.scalars(count.where(*wanted)).one() if wanted else total
    found = session.execute(_page(query, wanted, now_ms)).all()
    ids = [row[0] for row in found]
    month = _sums_of(RevenueMonth, month_start_ms(now_ms), "spent_nano")
    spent = _sums(session, month, RevenueMonth, ids)
    requests = _sums(session, _sums_of(RevenueDay, day_start_ms(now_ms), "requests"), RevenueDay, ids)
    members = _members(session, ids)
    rows = (
        Listed(
            id=row[0],
            name=row[1],
            plan=row[2],
            status=row[3],
            created_ms=row[4],
            balance_nano=row[5],
            limit_nano=row[6],
            spent_nano=spent.get(row[0], 0),
            requests=requests.get(row[0], 0),
            members=members.get(row[0], 0),
        )
        for row in found
    )
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


def _page(query: DirectoryQuery, wanted: Sequence[ColumnElement[bool]], now_ms: int) -> Select[*tuple[Any, ...]]:
    own = (getattr(Organisation, name) for name in ("id", "name", "plan", "status", "created_ms"))
    account = (func.coalesce(column, 0) for column in (CreditAccount.posted_nano, CreditAccount.limit_nano))
    page = select(*own, *account).outerjoin(CreditAccount, CreditAccount.organisation == Organisation.id).where(*wanted)
    by: ColumnElement[Any]
    if query.sort in _COLUMNS:
        column = _COLUMNS[query.sort]
        by = func.coalesce(column, 0) if column is CreditAccount.posted_nano else column.expression
    else:
        figures = _figures(query.sort, now_ms)
        page = page.outerjoin(figures, figures.c.organisation == Organisation.id)
        by = func.coalesce(figures.c.figure, 0)
    order = by.desc() if query.falling else by.asc()
    return page.order_by(order, Organisation.id).offset(query.offset).limit(query.count)


def _figures(sort: str, now_ms: int) -> Subquery:
    """What is sorted by where it is no column of the organisation: one figure for each that has any."""
    if sort == "members":
        query = select(Member.organisation_id.label("organisation"), func.count().label("figure"))
        return query.group_by(Member.organisation_id).subquery()
    if sort == "spent_nano":
        return _sums_of(RevenueMonth, month_start_ms(now_ms), sort).subquery()
    return _sums_of(RevenueDay, day_start_ms(now_ms), sort).subquery()


def _sums_of(model: Revenue, start_ms: int, sort: str) -> Select[str, int]:
    counted = model.cost_nano if sort == "spent_nano" else model.requests
    columns = (model.organisation.label("organisation"), cast(func.sum(counted), BigInteger).label("figure"))
    return select(*columns).where(model.start_ms == start_ms).group_by(model.organisation)


def _sums(session: Session, query: Select[str, int], model: Revenue, ids: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for at in range(0, len(ids), IDS_AT_ONCE):
        part = query.where(model.organisation.in_(ids[at : at + IDS_AT_ONCE]))
        found |= {row[0]: row[1] for row in session.execute(part)}
    return found


def _members(session: Session, ids: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for at in range(0, len(ids), IDS_AT_ONCE):
        query = select(Member.organisation_id, func.count()).group_by(Member.organisation_id)
        query = query.where(Member.organisation_id.in_(ids[at : at + IDS_AT_ONCE]))
        found |= {row[0]: row[1] for row in session.execute(query)}
    return found
