"""The audit log by actor, action, target and time."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

INDEXES = {
    "organisation_action_id": ("organisation", "action", "id"),
    "action_id": ("action", "id"),
    "actor_id_id": ("actor_id", "id"),
    "target_id_id": ("target_id", "id"),
    "at_ms": ("at_ms",),
}


def upgrade() -> None:
    for name, columns in INDEXES.items():
        op.create_index(op.f(f"ix_audit_log_{name}"), "audit_log", list(columns))


def downgrade() -> None:
    for name in INDEXES:
        op.drop_index(op.f(f"ix_audit_log_{name}"), "audit_log")
