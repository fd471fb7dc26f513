"""How often experts were chosen, by hour; how far the samples were taken in."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "expert_counts",
        sa.Column("tier", sa.String(64), nullable=False),
        sa.Column("hour_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("layer", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("expert", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tier", "hour_ms", "workspace", "layer", "expert", name=op.f("pk_expert_counts")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_expert_counts_hour_ms"), "expert_counts", ["hour_ms"])
    op.create_table(
        "expert_cursors",
        sa.Column("cell", sa.String(8), nullable=False),
        sa.Column("entry_id", sa.String(48), nullable=False),
        sa.PrimaryKeyConstraint("cell", name=op.f("pk_expert_cursors")),
    )


def downgrade() -> None:
    op.drop_table("expert_cursors")
    op.drop_table("expert_counts")
