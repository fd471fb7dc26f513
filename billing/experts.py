"""How often experts were chosen, by hour: what workers sampled, summed up, and how evenly it is spread.

The samples come in an order that their ids tell. How far they were taken in is noted in the transaction that counts
them, so none counts twice, whatever fails in between.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log

from sqlalchemy import BigInteger, Index, String, Table, cast, delete, func, inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from core.db import Base, insert_new
from core.errors import VALIDATION, PlatformError
from core.experts import BEGINNING, ExpertSample, entry_place

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
RANGE_MS_MAX = 92 * DAY_MS
ROWS_AT_ONCE = 1_000
ALL_WORKSPACES = ""

SampleKey = tuple[str, str, int, int, int]  # tier, workspace, start, layer, expert


class ExpertCount(Base):
    """How often an expert of a layer was chosen in sampled requests that ended within the hour (UTC) from hour_ms on,
    for each workspace and once more, with ALL_WORKSPACES, for all. Experts that were never chosen have a row, too, so
    that the rows tell how many there are.
    """

    __tablename__ = "expert_counts"
    __table_args__ = (Index(None, "hour_ms"), {"sqlite_with_rowid": False})

    tier: Mapped[str] = mapped_column(String(64), primary_key=True)
    workspace: Mapped[str] = mapped_column(String(64), primary_key=True)
    hour_ms: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    layer: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    expert: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    count: Mapped[int]


class ExpertDay(Base):
    """The same by day (UTC): for a month a 24th of the rows."""

    __tablename__ = "expert_days"
    __table_args__ = (Index(None, "day_ms"), {"sqlite_with_rowid": False})

    tier: Mapped[str] = mapped_column(String(64), primary_key=True)
    workspace: Mapped[str] = mapped_column(String(64), primary_key=True)
    day_ms: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    layer: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    expert: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    count: Mapped[int]


class ExpertCursor(Base):
    """The last sample of a cell that was taken in."""

    __tablename__ = "expert_cursors"

    cell: Mapped[str] = mapped_column(String(8), primary_key=True)
    entry_id: Mapped[str] = mapped_column(String(48))


@dataclass(frozen=True, slots=True)
class LayerCounts:
    """One layer: how often each expert was chosen. Choices that are spread evenly would give each `uniform_share`."""

    layer: int
    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.counts)

    @property
    def uniform_share(self) -> float:
        return 1 / len(self.counts)

    @property
    def shares(self) -> tuple[float, ...]:
        """Of each expert; zeros if nothing was counted."""
        total = self.total
        return tuple(count / total if total else 0.0 for count in self.counts)

    @property
    def max_over_mean(self) -> float:
        """1: evenly spread; the number of experts: all went to one. 0 if nothing was counted."""
        total = self.total
        return max(self.counts) * len(self.counts) / total if total else 0.0

    @property
    def entropy(self) -> float:
        """Of the shares, as a part of the largest that there can be: 1 is evenly spread, 0 is one expert alone."""
        if len(self.counts) < 2:
            return 1.0
        return -sum(share * log(share) for share in self.shares if share) / log(len(self.counts))


@dataclass(frozen=True, slots=True)
class LayerPoint:
    """One layer in one hour or day."""

    start_ms: int
    layer: LayerCounts


@dataclass(frozen=True, slots=True)
class ExpertPoint:
    """One hour: how often each expert was chosen."""

    hour_ms: int
    counts: tuple[int, ...]


def last_taken_in(session: Session, cell: str) -> str:
    return session.scalar(select(ExpertCursor.entry_id).where(ExpertCursor.cell == cell)) or BEGINNING


def take_in(session: Session, cell: str, entries: Sequence[tuple[str, ExpertSample]]) -> int:
    """Count what is new of these; how many were."""
    insert_new(session, ExpertCursor, [{"cell": cell, "entry_id": BEGINNING}], ("cell",))
    cursor = session.get_one(ExpertCursor, cell, with_for_update=True, populate_existing=True)
    new = [entry for entry in entries if entry_place(entry[0]) > entry_place(cursor.entry_id)]
    if new:
        _add(session, new)
        cursor.entry_id = new[-1][0]
    return len(new)


def expert_shares(
    session: Session, tier: str, start_ms: int, end_ms: int, workspace: str | None = None
) -> list[LayerCounts]:
    """By layer, over the hours that begin in [start_ms, end_ms); empty if nothing was counted. `workspace` None: all.
    Raises PlatformError (VALIDATION) for more than 92 days.
    """
    found = _summed(session, (ExpertCount.layer, ExpertCount.expert), tier, start_ms, end_ms, workspace)
    return [LayerCounts(layer, counts) for layer, counts in found]


def expert_series(
    session: Session, tier: str, start_ms: int, end_ms: int, workspace: str | None = None, layer: int | None = None
) -> list[ExpertPoint]:
    """By hour, those in which something was counted. `layer` None: all layers together. Bounds as in expert_shares."""
    columns = (ExpertCount.hour_ms, ExpertCount.expert)
    found = _summed(session, columns, tier, start_ms, end_ms, workspace, layer)
    return [ExpertPoint(hour_ms, counts) for hour_ms, counts in found]


def layer_points(
    session: Session, tier: str, start_ms: int, end_ms: int, workspace: str | None = None, *, by_day: bool = False
) -> list[LayerPoint]:
    """By hour, or by day (UTC), and layer: those that begin in [start_ms, end_ms) and in which something was counted.
    Bounds as in expert_shares.
    """
    _check_range(start_ms, end_ms)
    table = ExpertDay if by_day else ExpertCount
    at = ExpertDay.day_ms if by_day else ExpertCount.hour_ms
    query = select(at, table.layer, table.expert, table.count).where(
        table.tier == tier, table.workspace == (workspace or ALL_WORKSPACES), at >= start_ms, at < end_ms
    )
    counts: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
    for begins_ms, layer, expert, count in session.execute(query):
        counts[begins_ms, layer][expert] = count
    experts = range(1 + max((max(row) for row in counts.values()), default=-1))
    return [
        LayerPoint(begins_ms, LayerCounts(layer, tuple(row.get(expert, 0) for expert in experts)))
        for (begins_ms, layer), row in sorted(counts.items())
    ]


def sampled_tiers(session: Session) -> list[str]:
    """Those of which anything is kept, by name. Looks from name to name, so that it reads one row for each."""
    found: list[str] = []
    while True:
        following = select(func.min(ExpertDay.tier)).where(ExpertDay.tier > (found[-1] if found else ""))
        tier = session.execute(following).scalar_one()
        if tier is None:
            return found
        found.append(tier)


def sampled_workspaces(session: Session, tier: str, start_ms: int, count: int) -> list[str]:
    """The ids of those that were sampled since start_ms, the busiest first."""
    day = ExpertDay
    query = (
        select(day.workspace)
        .where(day.tier == tier, day.workspace != ALL_WORKSPACES, day.day_ms >= start_ms, day.layer == 0)
        .group_by(day.workspace)
        .order_by(func.sum(day.count).desc(), day.workspace)
        .limit(count)
    )
    return list(session.scalars(query))


def forget(session: Session, before_ms: int) -> None:
    """The hours and days that began before."""
    session.execute(delete(ExpertCount).where(ExpertCount.hour_ms < before_ms))
    session.execute(delete(ExpertDay).where(ExpertDay.day_ms < before_ms))


def _check_range(start_ms: int, end_ms: int) -> None:
    if end_ms - start_ms > RANGE_MS_MAX:
        raise PlatformError(VALIDATION, f"At most {RANGE_MS_MAX // DAY_MS} days at once.", param="from")


def _summed(
    session: Session,
    by: tuple[Mapped[int], Mapped[int]],
    tier: str,
    start_ms: int,
    end_ms: int,
    workspace: str | None,
    layer: int | None = None,
) -> list[tuple[int, tuple[int, ...]]]:
    _check_range(start_ms, end_ms)
    # Postgres sums BIGINT into NUMERIC.
    query = select(*by, cast(func.sum(ExpertCount.count), BigInteger)).where(
        ExpertCount.tier == tier,
        ExpertCount.workspace == (workspace or ALL_WORKSPACES),
        ExpertCount.hour_ms >= start_ms,
        ExpertCount.hour_ms < end_ms,
    )
    if layer is not None:
        query = query.where(ExpertCount.layer == layer)
    rows: dict[int, Counter[int]] = defaultdict(Counter)
    for row, expert, count in session.execute(query.group_by(*by)):
        rows[row][expert] = count
    experts = 1 + max((max(row) for row in rows.values()), default=-1)
    return [(row, tuple(rows[row][expert] for expert in range(experts))) for row in sorted(rows)]


def _add(session: Session, entries: Iterable[tuple[str, ExpertSample]]) -> None:
    hours: Counter[SampleKey] = Counter()
    days: Counter[SampleKey] = Counter()
    for entry_id, sample in entries:
        at_ms, _ = entry_place(entry_id)
        hour_ms, day_ms = at_ms - at_ms % HOUR_MS, at_ms - at_ms % DAY_MS
        for layer, counts in zip(sample.experts.layers, sample.experts.counts, strict=True):
            for expert, count in enumerate(counts):
                for workspace in (sample.workspace, ALL_WORKSPACES):
                    hours[sample.tier, workspace, hour_ms, layer, expert] += count
                    days[sample.tier, workspace, day_ms, layer, expert] += count
    _upsert(session, ExpertCount, "hour_ms", hours)
    _upsert(session, ExpertDay, "day_ms", days)


def _upsert(session: Session, model: type[Base], start: str, sums: Mapping[SampleKey, int]) -> None:
    names = ("tier", "workspace", start, "layer", "expert")
    rows = [dict(zip(names, key, strict=True)) | {"count": sums[key]} for key in sorted(sums)]
    connection = session.connection()
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    table = inspect(model).local_table
    assert isinstance(table, Table)
    insert = dialect.insert(table)
    adding = insert.on_conflict_do_update(
        index_elements=list(names), set_={"count": table.c["count"] + insert.excluded["count"]}
    )
    for start_at in range(0, len(rows), ROWS_AT_ONCE):
        connection.execute(adding, rows[start_at : start_at + ROWS_AT_ONCE])
