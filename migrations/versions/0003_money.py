"""Customers and prices."""

import sqlalchemy as sa
from alembic import op

from migrations.append_only import protect, unprotect

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

PRICE_BOUNDS = " AND ".join(f"{part}_nano BETWEEN 0 AND 10000000000" for part in ("input", "cached", "output"))


def upgrade() -> None:
    _customers()
    _prices()


def _customers() -> None:
    op.create_table(
        "customers",
        sa.Column("organisation", sa.String(32), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("address", sa.String(1_000), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("time_zone", sa.String(64), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organisation", name=op.f("pk_customers")),
    )


def _prices() -> None:
    op.create_table(
        "price_versions",
        sa.Column("version", sa.String(128), nullable=False),
        sa.Column("tier", sa.String(64), nullable=False),
        sa.Column("plan", sa.String(128), nullable=False),
        sa.Column("organisation", sa.String(32), nullable=False),
        sa.Column("input_nano", sa.BigInteger(), nullable=False),
        sa.Column("cached_nano", sa.BigInteger(), nullable=False),
        sa.Column("output_nano", sa.BigInteger(), nullable=False),
        sa.Column("batch_percent", sa.BigInteger(), nullable=False),
        sa.Column("start_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_price_versions")),
        sa.UniqueConstraint(
            "tier", "plan", "organisation", "start_ms", name=op.f("uq_price_versions_tier_plan_organisation_start_ms")
        ),
        sa.CheckConstraint(PRICE_BOUNDS, name=op.f("ck_price_versions_bounds")),
        sa.CheckConstraint("batch_percent BETWEEN 0 AND 100", name=op.f("ck_price_versions_batch")),
        sa.CheckConstraint("plan = '' OR organisation = ''", name=op.f("ck_price_versions_scope")),
    )
    protect("price_versions")


def downgrade() -> None:
    unprotect("price_versions")
    for table in ("price_versions", "customers"):
        op.drop_table(table)
