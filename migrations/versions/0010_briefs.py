"""Usage by hour without keys, and by day with them; an index of what did not finish."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from billing.sketch import pack_sketch, unpack_sketch

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
ROWS_AT_ONCE = 2_000
SUMS = ("requests", "failed", "prompt_tokens", "completion_tokens", "cached_tokens", "cost_nano", "loss_nano")
SKETCHES = ("first_token_sketch", "total_sketch")
UNFINISHED = sa.text("outcome <> 'finished'")


def upgrade() -> None:
    hours = _table("usage_tier_hours", ("workspace", "tier"), SKETCHES)
    _table("usage_key_days", ("workspace", "key_id", "tier"), ())
    op.create_index(
        "ix_usage_records_unfinished",
        "usage_records",
        ["organisation", "admitted_ms", "outcome"],
        sqlite_where=UNFINISHED,
        postgresql_where=UNFINISHED,
    )
    _fill_days()
    _fill_hours(hours)


def _table(name: str, names: tuple[str, ...], sketches: tuple[str, ...]) -> sa.Table:
    key = ("organisation", "start_ms", *names)
    table = op.create_table(
        name,
        sa.Column("organisation", sa.String(64), nullable=False),
        sa.Column("start_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        *(sa.Column(each, sa.String(64), nullable=False) for each in names),
        *(sa.Column(each, sa.BigInteger(), nullable=False) for each in SUMS),
        *(sa.Column(each, sa.LargeBinary(), nullable=False) for each in sketches),
        sa.PrimaryKeyConstraint(*key, name=op.f(f"pk_{name}")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f(f"ix_{name}_start_ms"), name, ["start_ms"])
    return table


def _fill_days() -> None:
    names, sums = ", ".join(SUMS), ", ".join(f"SUM({name})" for name in SUMS)
    day = f"start_ms - start_ms % {DAY_MS}"
    op.execute(
        f"INSERT INTO usage_key_days (organisation, start_ms, workspace, key_id, tier, {names}) "  # noqa: S608 - our own names
        f"SELECT organisation, {day}, workspace, key_id, tier, {sums} FROM usage_hours "
        f"GROUP BY organisation, {day}, workspace, key_id, tier"
    )


def _fill_hours(table: sa.Table) -> None:
    """Organisation by organisation and hour by hour, so that little is held at a time."""
    connection = op.get_bind()
    spans = sa.table(
        "usage_spans",
        *(sa.column(name) for name in ("organisation", "start_ms", "workspace", "tier", *SUMS, *SKETCHES)),
    )
    rows: list[dict[str, Any]] = []
    for organisation in connection.execute(sa.select(spans.c.organisation).distinct()).scalars().all():
        at_ms = 0
        while True:
            query = sa.select(sa.func.min(spans.c.start_ms))
            first_ms = connection.execute(
                query.where(spans.c.organisation == organisation, spans.c.start_ms >= sa.cast(at_ms, sa.BigInteger))
            ).scalar_one()
            if first_ms is None:
                break
            hour_ms = first_ms - first_ms % HOUR_MS
            at_ms = hour_ms + HOUR_MS
            rows += _hour(connection, spans, organisation, hour_ms)
            if len(rows) >= ROWS_AT_ONCE:
                connection.execute(sa.insert(table), rows)
                rows = []
    if rows:
        connection.execute(sa.insert(table), rows)


def _hour(connection: sa.Connection, spans: sa.TableClause, organisation: str, hour_ms: int) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    query = sa.select(spans).where(
        spans.c.organisation == organisation,
        spans.c.start_ms >= sa.cast(hour_ms, sa.BigInteger),
        spans.c.start_ms < sa.cast(hour_ms + HOUR_MS, sa.BigInteger),
    )
    for span in connection.execute(query).mappings():
        row = found.get((span["workspace"], span["tier"]))
        if row is None:
            found[span["workspace"], span["tier"]] = {**span, "start_ms": hour_ms}
            continue
        row |= {name: row[name] + span[name] for name in SUMS}
        row |= {name: pack_sketch(unpack_sketch(row[name]) + unpack_sketch(span[name])) for name in SKETCHES}
    return list(found.values())


def downgrade() -> None:
    op.drop_index("ix_usage_records_unfinished", "usage_records")
    op.drop_table("usage_key_days")
    op.drop_table("usage_tier_hours")
