"""Sums for operators: usage by day and month of each organisation and tier, the journal's own accounts by sealed hour,
chosen experts by day and of all workspaces together.
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
SUMS = ("requests", "failed", "prompt_tokens", "completion_tokens", "cached_tokens", "cost_nano", "loss_nano")
OWN_ACCOUNTS = ("cash", "promo", "loss", "breakage", "rounding", "revenue:paid", "revenue:promo", "revenue:lost")


def upgrade() -> None:
    for table in ("revenue_days", "revenue_months"):
        _revenue(table)
    op.create_table(
        "ledger_hours",
        sa.Column("hour_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hour_ms", "account", "kind", name=op.f("pk_ledger_hours")),
        sqlite_with_rowid=False,
    )
    _fill_revenue()
    _fill_ledger()
    _experts()


def _revenue(table: str) -> None:
    op.create_table(
        table,
        sa.Column("start_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tier", sa.String(64), nullable=False),
        sa.Column("organisation", sa.String(64), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint("start_ms", "tier", "organisation", name=op.f(f"pk_{table}")),
        sqlite_with_rowid=False,
    )


def _fill_revenue() -> None:
    names = ", ".join(SUMS)
    sums = ", ".join(f"SUM({name})" for name in SUMS)
    connection = op.get_bind()
    connection.execute(
        sa.text(
            f"INSERT INTO revenue_days (start_ms, tier, organisation, {names}) "  # noqa: S608 - our own names
            f"SELECT start_ms - start_ms % {DAY_MS}, tier, organisation, {sums} FROM usage_hours "
            f"GROUP BY start_ms - start_ms % {DAY_MS}, tier, organisation"
        )
    )
    first_ms, last_ms = connection.execute(sa.text("SELECT MIN(start_ms), MAX(start_ms) FROM revenue_days")).one()
    while first_ms is not None and first_ms <= last_ms:
        moment = datetime.fromtimestamp(first_ms // 1_000, UTC)
        month_ms = round(datetime(moment.year, moment.month, 1, tzinfo=UTC).timestamp()) * 1_000
        number = moment.year * 12 + moment.month
        first_ms = round(datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC).timestamp()) * 1_000
        connection.execute(
            sa.text(
                f"INSERT INTO revenue_months (start_ms, tier, organisation, {names}) "  # noqa: S608 - our own names
                f"SELECT :month_ms, tier, organisation, {sums} FROM revenue_days "
                "WHERE start_ms >= :month_ms AND start_ms < :end_ms GROUP BY tier, organisation"
            ).bindparams(
                sa.bindparam("month_ms", type_=sa.BigInteger()), sa.bindparam("end_ms", type_=sa.BigInteger())
            ),
            {"month_ms": month_ms, "end_ms": first_ms},
        )


def _fill_ledger() -> None:
    accounts = ", ".join(f"'{account}'" for account in OWN_ACCOUNTS)
    op.execute(
        "INSERT INTO ledger_hours (hour_ms, account, kind, amount_nano) "  # noqa: S608 - our own names
        f"SELECT t.booked_ms - t.booked_ms % {HOUR_MS}, e.account, t.kind, SUM(e.amount_nano) "
        "FROM ledger_transactions t JOIN ledger_entries e ON e.transaction_id = t.id "
        f"WHERE e.account IN ({accounts}) AND t.booked_ms < "
        f"COALESCE((SELECT MAX(hour_ms) + {HOUR_MS} FROM ledger_seals), 0) "
        f"GROUP BY t.booked_ms - t.booked_ms % {HOUR_MS}, e.account, t.kind"
    )


def _experts() -> None:
    """Hours in another order: what is asked for lies side by side. With an empty workspace: all of them together."""
    op.rename_table("expert_counts", "expert_counts_before")
    op.drop_index(op.f("ix_expert_counts_hour_ms"), "expert_counts_before")
    if op.get_bind().dialect.name == "postgresql":  # names of constraints are unique there
        op.execute("ALTER TABLE expert_counts_before RENAME CONSTRAINT pk_expert_counts TO pk_expert_counts_before")
    for table, start in (("expert_counts", "hour_ms"), ("expert_days", "day_ms")):
        op.create_table(
            table,
            sa.Column("tier", sa.String(64), nullable=False),
            sa.Column("workspace", sa.String(64), nullable=False),
            sa.Column(start, sa.BigInteger(), autoincrement=False, nullable=False),
            sa.Column("layer", sa.BigInteger(), autoincrement=False, nullable=False),
            sa.Column("expert", sa.BigInteger(), autoincrement=False, nullable=False),
            sa.Column("count", sa.BigInteger(), nullable=False),
            sa.PrimaryKeyConstraint("tier", "workspace", start, "layer", "expert", name=op.f(f"pk_{table}")),
            sqlite_with_rowid=False,
        )
        op.create_index(op.f(f"ix_{table}_{start}"), table, [start])
        at = "hour_ms" if start == "hour_ms" else f"hour_ms - hour_ms % {DAY_MS}"
        for workspace, group in (("workspace", "workspace, "), ("''", "")):
            op.execute(
                f"INSERT INTO {table} (tier, workspace, {start}, layer, expert, count) "  # noqa: S608 - our own names
                f"SELECT tier, {workspace}, {at}, layer, expert, SUM(count) FROM expert_counts_before "
                f"GROUP BY tier, {group}{at}, layer, expert"
            )
    op.drop_table("expert_counts_before")


def downgrade() -> None:
    op.execute("DELETE FROM expert_counts WHERE workspace = ''")
    for table in ("expert_days", "ledger_hours", "revenue_months", "revenue_days"):
        op.drop_table(table)
