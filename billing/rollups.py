"""Roll-ups: sums of usage records by quarter of an hour (spans) and by hour; by organisation, workspace, key, tier and
kind.

Quarters, because the clocks of the world differ by multiples of 15 minutes: a day or a month in any time zone is an
exact sum of them. Hours, because most zones need no more, and they are a quarter of the rows. The collector adds to
both in the transaction that inserts the records; whoever writes them holds the lock of `lock_books`, so that reading,
adding and writing are one step.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Table, delete, func, inspect, select, text, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from billing.models import KeyLastUsed, UsageHour, UsageRecord, UsageSpan
from billing.sketch import bucket_of, pack_sketch, unpack_sketch
from core.db import Base

SPAN_MS = 900_000
HOUR_MS = 3_600_000
FAILED = frozenset({"failed", "timeout", "gateway_lost"})
ROWS_AT_ONCE = 2_000
_LOCK = 7_204_581_634  # any number that no other program uses

KEY_COLUMNS = ("organisation", "start_ms", "workspace", "key_id", "tier", "kind")
SUM_COLUMNS = (
    "requests",
    "failed",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cost_nano",
    "loss_nano",
)
SKETCH_COLUMNS = ("first_token_sketch", "total_sketch")
HOUR_COLUMNS = KEY_COLUMNS + SUM_COLUMNS
COLUMNS = HOUR_COLUMNS + SKETCH_COLUMNS
_RECORD_COLUMNS = (
    UsageRecord.organisation,
    UsageRecord.workspace,
    UsageRecord.key_id,
    UsageRecord.tier,
    UsageRecord.kind,
    UsageRecord.outcome,
    UsageRecord.prompt_tokens,
    UsageRecord.completion_tokens,
    UsageRecord.cached_tokens,
    UsageRecord.cost_nano,
    UsageRecord.loss_nano,
    UsageRecord.admitted_ms,
    UsageRecord.taken_ms,
    UsageRecord.first_token_ms,
    UsageRecord.settled_ms,
)

SpanKey = tuple[str, int, str, str, str, str]


class Counted(NamedTuple):
    """What of a record counts in its span; in the order of _RECORD_COLUMNS."""

    organisation: str
    workspace: str
    key_id: str
    tier: str
    kind: str
    outcome: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost_nano: int
    loss_nano: int
    admitted_ms: int
    taken_ms: int
    first_token_ms: int
    settled_ms: int


def add_sums(sums: list[int], record: Counted) -> None:
    """`sums` in the order of SUM_COLUMNS."""
    sums[0] += 1
    sums[1] += record.outcome in FAILED
    sums[2] += record.prompt_tokens
    sums[3] += record.completion_tokens
    sums[4] += record.cached_tokens
    sums[5] += record.cost_nano
    sums[6] += record.loss_nano


@dataclass(slots=True)
class Span:
    """`sums` in the order of SUM_COLUMNS. The first token is counted from admission, as a caller waits for it."""

    sums: list[int] = field(default_factory=lambda: [0] * len(SUM_COLUMNS))
    first_token: Counter[int] = field(default_factory=Counter)
    total: Counter[int] = field(default_factory=Counter)

    def add(self, record: Counted) -> None:
        add_sums(self.sums, record)
        self.total[bucket_of(record.settled_ms - record.admitted_ms)] += 1
        if record.first_token_ms:
            self.first_token[bucket_of(record.taken_ms - record.admitted_ms + record.first_token_ms)] += 1

    def row(self, key: SpanKey) -> tuple[Any, ...]:
        return (*key, *self.sums, *self.sketches())

    def sketches(self) -> tuple[bytes, bytes]:
        """In the order of SKETCH_COLUMNS."""
        return pack_sketch(self.first_token), pack_sketch(self.total)


def lock_books(session: Session) -> None:
    """Until the end of the transaction nobody else writes records or roll-ups. SQLite has one writer anyhow."""
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})


def spans_of(records: Iterable[Counted]) -> dict[SpanKey, Span]:
    spans: dict[SpanKey, Span] = {}
    for record in records:
        start_ms = record.admitted_ms - record.admitted_ms % SPAN_MS
        key = (record.organisation, start_ms, record.workspace, record.key_id, record.tier, record.kind)
        span = spans.get(key)
        if span is None:
            span = spans[key] = Span()
        span.add(record)
    return spans


def hours_of(spans: Mapping[SpanKey, Span]) -> dict[SpanKey, list[int]]:
    """The sums of whole hours."""
    hours: dict[SpanKey, list[int]] = {}
    for (organisation, start_ms, workspace, key_id, tier, kind), span in spans.items():
        key = (organisation, start_ms - start_ms % HOUR_MS, workspace, key_id, tier, kind)
        sums = hours.get(key)
        hours[key] = (
            span.sums if sums is None else [mine + theirs for mine, theirs in zip(sums, span.sums, strict=True)]
        )
    return hours


def add_to_rollups(session: Session, records: Sequence[Counted]) -> None:
    """Count records that were inserted in this transaction. The caller has called lock_books."""
    spans = spans_of(records)
    hours = hours_of(spans)
    upsert(session, UsageHour, KEY_COLUMNS, _hour_rows(hours), adding=True)
    keys = sorted(spans)
    for at in range(0, len(keys), ROWS_AT_ONCE):
        for row in session.execute(_rows(keys[at : at + ROWS_AT_ONCE])):
            span = spans[tuple(row[: len(KEY_COLUMNS)])]
            stored = row[len(KEY_COLUMNS) :]
            span.sums = [mine + theirs for mine, theirs in zip(span.sums, stored, strict=False)]
            span.first_token.update(unpack_sketch(stored[-2]))
            span.total.update(unpack_sketch(stored[-1]))
    upsert(session, UsageSpan, KEY_COLUMNS, [dict(zip(COLUMNS, spans[key].row(key), strict=True)) for key in keys])


def mark_used(session: Session, records: Iterable[Counted]) -> None:
    """Remember the youngest request of each key. The caller has called lock_books."""
    used: dict[str, int] = {}
    for record in records:
        used[record.key_id] = max(record.admitted_ms, used.get(record.key_id, 0))
    known = select(KeyLastUsed.key_id, KeyLastUsed.last_used_ms).where(KeyLastUsed.key_id.in_(used))
    for key_id, last_used_ms in session.execute(known):
        used[key_id] = max(last_used_ms, used[key_id])
    rows = [{"key_id": key_id, "last_used_ms": used[key_id]} for key_id in sorted(used)]
    upsert(session, KeyLastUsed, ("key_id",), rows)


def next_hour_ms(session: Session, from_ms: int) -> int | None:
    """The first hour from from_ms on in which there is a record or a roll-up."""
    found = [
        session.execute(select(func.min(column)).where(column >= from_ms)).scalar_one()
        for column in (UsageRecord.admitted_ms, UsageSpan.start_ms, UsageHour.start_ms)
    ]
    return min((at_ms - at_ms % HOUR_MS for at_ms in found if at_ms is not None), default=None)


def hour_from_records(session: Session, hour_ms: int) -> list[tuple[Any, ...]]:
    """The rows of the four spans from hour_ms on, then those of the hour, by the records alone: COLUMNS and
    HOUR_COLUMNS, each ordered by key.
    """
    spans = spans_of(_records(session, hour_ms))
    hours = hours_of(spans)
    return [spans[key].row(key) for key in sorted(spans)] + [(*key, *hours[key]) for key in sorted(hours)]


def hour_stored(session: Session, hour_ms: int) -> list[tuple[Any, ...]]:
    """The rows as they stand, like hour_from_records."""
    found: list[tuple[Any, ...]] = []
    for model, names in ((UsageSpan, COLUMNS), (UsageHour, HOUR_COLUMNS)):
        columns = [getattr(model, name) for name in names]
        query = select(*columns).where(model.start_ms >= hour_ms, model.start_ms < hour_ms + HOUR_MS)
        # Sorted here: databases differ in the order of text.
        found += sorted(tuple(row) for row in session.execute(query))
    return found


def rebuild_hour(session: Session, hour_ms: int) -> int:
    """Make the hour's roll-ups say what its records say; how many rows were wrong. Writes nothing if none was."""
    lock_books(session)
    stored, right = hour_stored(session, hour_ms), hour_from_records(session, hour_ms)
    wrong = len(set(stored) ^ set(right))
    if wrong:
        for model, names in ((UsageSpan, COLUMNS), (UsageHour, HOUR_COLUMNS)):
            session.execute(delete(model).where(model.start_ms >= hour_ms, model.start_ms < hour_ms + HOUR_MS))
            rows = [dict(zip(names, row, strict=True)) for row in right if len(row) == len(names)]
            upsert(session, model, KEY_COLUMNS, rows)
    return wrong


def _records(session: Session, hour_ms: int) -> Iterator[Counted]:
    query = select(*_RECORD_COLUMNS).where(
        UsageRecord.admitted_ms >= hour_ms, UsageRecord.admitted_ms < hour_ms + HOUR_MS
    )
    for row in session.execute(query.execution_options(yield_per=ROWS_AT_ONCE)):
        yield Counted._make(row)


def _rows(keys: Sequence[SpanKey]) -> Any:
    columns = [getattr(UsageSpan, name) for name in COLUMNS]
    return select(*columns).where(tuple_(*columns[: len(KEY_COLUMNS)]).in_(keys))


def _hour_rows(hours: Mapping[SpanKey, Sequence[int]]) -> list[dict[str, Any]]:
    return [dict(zip(HOUR_COLUMNS, (*key, *hours[key]), strict=True)) for key in sorted(hours)]


def upsert(
    session: Session,
    model: type[Base],
    key_columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    *,
    adding: bool = False,
) -> None:
    """Rows that are there get the new values; `adding`: on top of their own. All rows name the same columns."""
    if not rows:
        return
    connection = session.connection()
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    table = inspect(model).local_table
    assert isinstance(table, Table)
    insert = dialect.insert(table)
    changes: dict[str, Any] = {name: insert.excluded[name] for name in rows[0] if name not in key_columns}
    if adding:
        changes = {name: table.c[name] + new for name, new in changes.items()}
    connection.execute(
        insert.on_conflict_do_update(index_elements=list(key_columns), set_=changes), [dict(row) for row in rows]
    )
