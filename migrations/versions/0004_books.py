"""The books of usage: what covers each record, roll-ups, and the claims of periodic tasks."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NEW_COLUMNS = ("epoch", "loss_nano", "transaction_id")


def upgrade() -> None:
    # Columns are added, the table is not rebuilt: SQLite would drop its append-only triggers.
    op.add_column("usage_records", sa.Column("epoch", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("usage_records", sa.Column("loss_nano", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("usage_records", sa.Column("transaction_id", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_usage_records_transaction_id"), "usage_records", ["transaction_id"])
    _roll_up(
        "usage_spans",
        sa.Column("first_token_sketch", sa.LargeBinary(), nullable=False),
        sa.Column("total_sketch", sa.LargeBinary(), nullable=False),
    )
    _roll_up("usage_hours")
    op.create_table(
        "key_last_used",
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("last_used_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_key_last_used")),
    )
    op.create_table(
        "task_runs",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("window_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("started_ms", sa.BigInteger(), nullable=False),
        sa.Column("finished_ms", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.String(500), nullable=False),
        sa.PrimaryKeyConstraint("name", "window_ms", name=op.f("pk_task_runs")),
    )
    op.create_table(
        "books_checks",
        sa.Column("at_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ok", sa.Boolean(), nullable=False),
        sa.Column("findings", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("at_ms", name=op.f("pk_books_checks")),
    )


def _roll_up(table: str, *more: sa.Column[bytes]) -> None:
    op.create_table(
        table,
        sa.Column("organisation", sa.String(64), nullable=False),
        sa.Column("start_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("tier", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), nullable=False),
        sa.Column("loss_nano", sa.BigInteger(), nullable=False),
        *more,
        sa.PrimaryKeyConstraint(
            "organisation", "start_ms", "workspace", "key_id", "tier", "kind", name=op.f(f"pk_{table}")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f(f"ix_{table}_start_ms"), table, ["start_ms"])
    op.create_index(op.f(f"ix_{table}_key_id_start_ms"), table, ["key_id", "start_ms"])


def downgrade() -> None:
    for table in ("books_checks", "task_runs", "key_last_used", "usage_hours", "usage_spans"):
        op.drop_table(table)
    op.drop_index(op.f("ix_usage_records_transaction_id"), "usage_records")
    for column in NEW_COLUMNS:
        op.drop_column("usage_records", column)
