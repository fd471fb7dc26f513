"""Single requests as people look for them: newest first, filtered, in pages, whatever their number.

The indices of the records know organisation and time, and what did not finish. For any other filter the roll-ups tell
the hours in which something matches, so that a page reads the records of a few hours and is full all the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, and_, cast, false, func, literal_column, or_, select, tuple_
from sqlalchemy.orm import Session

from billing.briefs import TierHour
from billing.models import UsageHour, UsageRecord
from billing.prices import PriceVersion
from billing.rollups import FAILED, HOUR_MS
from core.db import Database

PAGE_MAX = 400  # so many ranges of hours fit into one statement of SQLite
FAR_MS = 2**62
FINISHED = "finished"
FAILED_ANY = "failed"
_FINISHED: ColumnElement[str] = literal_column(
    "'finished'"
)  # as the index of the others says it: a parameter would not do

Cursor = tuple[int, str]  # when it was admitted, and its id


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Admitted in [from_ms, to_ms), None: open. `workspaces` None: whoever asks sees all of them. `outcome` FAILED_ANY:
    whatever we failed and did not charge.
    """

    organisation: str
    workspaces: frozenset[str] | None = None
    tier: str = ""
    workspace: str = ""
    key_id: str = ""
    outcome: str = ""
    from_ms: int | None = None
    to_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RequestPage:
    """`following` is the `before` of the next page; None: this is the last. One that is not the last may be short."""

    records: list[UsageRecord]
    following: Cursor | None


def list_requests(session: Session, wanted: RequestFilter, before: Cursor | None, count: int) -> RequestPage:
    """At most `count` and PAGE_MAX that come after `before` in the order of the list: the latest admission first, then
    the highest id.
    """
    count = min(count, PAGE_MAX)
    record = UsageRecord
    query = select(record).where(record.organisation == wanted.organisation, *_same(wanted, record))
    if wanted.key_id:
        query = query.where(record.key_id == wanted.key_id)
    if wanted.outcome == FAILED_ANY:
        query = query.where(record.outcome.in_(sorted(FAILED)))
    elif wanted.outcome:
        query = query.where(record.outcome == wanted.outcome)
    rest: Cursor | None = None
    if wanted.outcome and wanted.outcome != FINISHED:
        query = query.where(record.outcome != _FINISHED)
    elif wanted.outcome or wanted.key_id or _same(wanted, record):
        within, rest = _in_hours(session, wanted, before, count + 1)
        query = query.where(within)
    query = query.where(*_between(record.admitted_ms, wanted))
    if before is not None:
        query = query.where(record.admitted_ms <= before[0], tuple_(record.admitted_ms, record.request_id) < before)
    query = query.order_by(record.admitted_ms.desc(), record.request_id.desc())
    found = list(session.scalars(query.limit(count + 1)))
    if len(found) <= count:
        return RequestPage(found, rest)
    last = found[count - 1]
    return RequestPage(found[:count], (last.admitted_ms, last.request_id))


def find_request(session: Session, organisation: str, request_id: str) -> UsageRecord | None:
    found = session.get(UsageRecord, request_id)
    return found if found is not None and found.organisation == organisation else None


def price_of(session: Session, version: str) -> PriceVersion | None:
    return session.get(PriceVersion, version)


def request_pages(database: Database, wanted: RequestFilter, count_max: int) -> Iterator[list[UsageRecord]]:
    """All that match, newest first, at most count_max; each page in a transaction of its own."""
    before, left = None, count_max
    while left > 0:
        with database.reading() as session:
            page = list_requests(session, wanted, before, left)
        left -= len(page.records)
        yield page.records
        before = page.following
        if before is None:
            return


def _in_hours(
    session: Session, wanted: RequestFilter, before: Cursor | None, count: int
) -> tuple[ColumnElement[bool], Cursor | None]:
    """The newest hours that hold `count` matching records, or a few more or less where the range or `before` cuts one
    or some were cancelled; and where to go on after them, None: nothing is left.
    """
    hour: Any = UsageHour if wanted.key_id else TierHour
    matching = hour.requests - hour.failed if wanted.outcome else hour.requests
    query = select(hour.start_ms, cast(func.sum(matching), BigInteger))
    query = query.where(hour.organisation == wanted.organisation, matching > 0, *_same(wanted, hour))
    if wanted.key_id:
        query = query.where(hour.key_id == wanted.key_id)
    if wanted.from_ms is not None:
        query = query.where(hour.start_ms > wanted.from_ms - HOUR_MS)
    last_ms = min(each for each in (before and before[0], wanted.to_ms, FAR_MS) if each is not None)
    query = query.where(hour.start_ms <= last_ms).group_by(hour.start_ms).order_by(hour.start_ms.desc())
    ranges: list[tuple[int, int]] = []
    held = 0
    for start_ms, requests in session.execute(query.limit(count + 1)):
        if ranges and ranges[-1][0] == start_ms + HOUR_MS:
            ranges[-1] = (start_ms, ranges[-1][1])
        else:
            ranges.append((start_ms, start_ms + HOUR_MS))
        held += requests if start_ms <= last_ms - HOUR_MS else 0
        if held >= count:
            break
    at = UsageRecord.admitted_ms
    within = or_(false(), *(and_(at >= start_ms, at < end_ms) for start_ms, end_ms in ranges))
    return within, (ranges[-1][0], "") if held >= count else None


def _between(at: Any, wanted: RequestFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.from_ms is not None:
        found.append(at >= wanted.from_ms)
    if wanted.to_ms is not None:
        found.append(at < wanted.to_ms)
    return found


def _same(wanted: RequestFilter, table: Any) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.tier:
        found.append(table.tier == wanted.tier)
    if wanted.workspace:
        found.append(table.workspace == wanted.workspace)
    if wanted.workspaces is not None:
        found.append(table.workspace.in_(sorted(wanted.workspaces)))
    return found
