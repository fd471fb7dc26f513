"""Status, allow-lists, rotation of secrets, limits as rows of their own, the audit log."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from core.clock import SystemClock
from core.ids import SystemIds
from migrations.append_only import protect, unprotect

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

PLAN_LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrency")
UNBOUNDED = 2**52
LIMITS = sa.table(
    "limits",
    *(sa.column(name) for name in ("id", "subject_kind", "subject_id", "tier", "kind", "value", "created_ms")),
    sa.column("hard", sa.Boolean()),
)
PLANS = sa.table("plans", sa.column("name"), *(sa.column(name) for name in PLAN_LIMITS))


def upgrade() -> None:
    _limits()
    _organisations()
    _keys()
    _audit_log()


def _limits() -> None:
    op.create_table(
        "limits",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("subject_kind", sa.String(16), nullable=False),
        sa.Column("subject_id", sa.String(128), nullable=False),
        sa.Column("tier", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("hard", sa.Boolean(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_limits")),
        sa.UniqueConstraint(
            "subject_kind",
            "subject_id",
            "tier",
            "kind",
            "hard",
            name=op.f("uq_limits_subject_kind_subject_id_tier_kind_hard"),
        ),
    )
    clock = SystemClock()
    ids, created_ms = SystemIds(clock), clock.now_ms()
    rows: list[dict[str, Any]] = [
        {
            "id": ids.token(16),
            "subject_kind": "plan",
            "subject_id": plan["name"],
            "tier": "",
            "kind": kind,
            "value": plan[kind],
            "hard": True,
            "created_ms": created_ms,
        }
        for plan in op.get_bind().execute(sa.select(PLANS)).mappings()
        for kind in PLAN_LIMITS
    ]
    if rows:
        op.bulk_insert(LIMITS, rows)
    with op.batch_alter_table("plans") as batch:
        for name in PLAN_LIMITS:
            batch.drop_column(name)


def _organisations() -> None:
    with op.batch_alter_table("organisations") as batch:
        batch.add_column(sa.Column("status", sa.String(16), nullable=False, server_default="active"))
        batch.add_column(sa.Column("lenient", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("organisations") as batch:
        batch.alter_column("status", server_default=None)
        batch.alter_column("lenient", server_default=None)
    with op.batch_alter_table("workspaces") as batch:
        batch.add_column(sa.Column("is_default", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch.add_column(sa.Column("lenient", sa.Boolean(), nullable=True))
        batch.add_column(sa.Column("archived_ms", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("workspaces") as batch:
        batch.alter_column("is_default", server_default=None)
    op.execute("UPDATE workspaces SET is_default = TRUE WHERE name = 'default'")
    op.create_index(
        "uq_workspaces_default",
        "workspaces",
        ["organisation_id"],
        unique=True,
        sqlite_where=sa.text("is_default"),
        postgresql_where=sa.text("is_default"),
    )


def _keys() -> None:
    op.create_table(
        "key_secrets",
        sa.Column("digest", sa.String(96), nullable=False),
        sa.Column("key_id", sa.String(32), nullable=False),
        sa.Column("hint", sa.String(8), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_key_secrets_key_id_api_keys")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_key_secrets")),
    )
    op.create_index(op.f("ix_key_secrets_key_id"), "key_secrets", ["key_id"])
    op.execute(
        "INSERT INTO key_secrets (digest, key_id, hint, created_ms) SELECT digest, id, hint, created_ms FROM api_keys"
    )
    with op.batch_alter_table("api_keys") as batch:
        batch.add_column(sa.Column("owner", sa.String(32), nullable=True))
        batch.add_column(sa.Column("tiers", sa.JSON(), nullable=True))
        batch.add_column(sa.Column("networks", sa.JSON(), nullable=False, server_default="[]"))
        batch.add_column(sa.Column("created_by", sa.String(128), nullable=False, server_default=""))
        batch.drop_column("digest")
        batch.drop_column("hint")
    with op.batch_alter_table("api_keys") as batch:
        batch.alter_column("networks", server_default=None)
        batch.alter_column("created_by", server_default=None)
    op.create_index(op.f("ix_api_keys_owner"), "api_keys", ["owner"])


def _audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("actor_kind", sa.String(16), nullable=False),
        sa.Column("actor_id", sa.String(128), nullable=False),
        sa.Column("actor_name", sa.String(128), nullable=False),
        sa.Column("organisation", sa.String(32), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("target_kind", sa.String(32), nullable=False),
        sa.Column("target_id", sa.String(128), nullable=False),
        sa.Column("before", sa.JSON(), nullable=True),
        sa.Column("after", sa.JSON(), nullable=True),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index(op.f("ix_audit_log_organisation_id"), "audit_log", ["organisation", "id"])
    protect("audit_log")


def downgrade() -> None:
    """Of two secrets the youngest stays; limits that version 0001 cannot hold are lost."""
    unprotect("audit_log")
    op.drop_table("audit_log")
    with op.batch_alter_table("api_keys") as batch:
        batch.add_column(sa.Column("digest", sa.String(96), nullable=False, server_default=""))
        batch.add_column(sa.Column("hint", sa.String(8), nullable=False, server_default=""))
        batch.drop_index("ix_api_keys_owner")
        for name in ("owner", "tiers", "networks", "created_by"):
            batch.drop_column(name)
    for name in ("digest", "hint"):
        op.execute(
            f"UPDATE api_keys SET {name} = (SELECT {name} FROM key_secrets WHERE key_id = api_keys.id "  # noqa: S608 - our own names
            "ORDER BY created_ms DESC LIMIT 1)"
        )
    op.drop_table("key_secrets")
    op.drop_index("uq_workspaces_default", "workspaces")
    for table, names in (
        ("workspaces", ("is_default", "lenient", "archived_ms")),
        ("organisations", ("status", "lenient")),
    ):
        with op.batch_alter_table(table) as batch:
            for name in names:
                batch.drop_column(name)
    with op.batch_alter_table("plans") as batch:
        for name in PLAN_LIMITS:
            batch.add_column(sa.Column(name, sa.BigInteger(), nullable=False, server_default=str(UNBOUNDED)))
    for name in PLAN_LIMITS:
        op.execute(
            f"UPDATE plans SET {name} = COALESCE((SELECT value FROM limits WHERE subject_kind = 'plan' "  # noqa: S608 - our own names
            f"AND subject_id = plans.name AND tier = '' AND kind = '{name}' AND hard), {name})"
        )
    op.drop_table("limits")
