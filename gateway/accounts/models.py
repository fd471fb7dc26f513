"""Who may use the platform: organisation > workspace > API key, the limits that bound them, and who changed what."""

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from core.db import Base

ID_LENGTH = 32
NAME_LENGTH_MAX = 128
TIER_LENGTH_MAX = 64
ACTIVE = "active"
SUSPENDED = "suspended"


class Plan(Base):
    """What an organisation starts with; its limits are rows of `limits`. Seeded from tramontane.toml once; from then
    on SQL is the truth. `weight` is the share in the fair queue.
    """

    __tablename__ = "plans"

    name: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX), primary_key=True)
    credit_nano: Mapped[int]
    weight: Mapped[int]


class Organisation(Base):
    """Who pays. `generation` rises with every administrative change that a cached principal must not outlive.
    `lenient`: its workspaces accept what OpenAI clients send, unless they say otherwise.
    """

    __tablename__ = "organisations"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX), unique=True)
    plan: Mapped[str] = mapped_column(ForeignKey("plans.name"))
    status: Mapped[str] = mapped_column(String(16))
    lenient: Mapped[bool]
    generation: Mapped[int]
    created_ms: Mapped[int]


class Workspace(Base):
    """One of each organisation is its default and cannot be archived. `lenient` None: as the organisation."""

    __tablename__ = "workspaces"
    __table_args__ = (
        UniqueConstraint("organisation_id", "name"),
        Index(
            "uq_workspaces_default",
            "organisation_id",
            unique=True,
            sqlite_where=text("is_default"),
            postgresql_where=text("is_default"),
        ),
    )

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    name: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX))
    is_default: Mapped[bool]
    lenient: Mapped[bool | None]
    created_ms: Mapped[int]
    archived_ms: Mapped[int | None]


class ApiKey(Base):
    """`id` is the public part of the key. `owner` is a user's id, None for a key that no person owns. `tiers` None:
    all. `networks`: CIDR notation, empty for any address. `created_by` is an actor, as the audit log names it.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), index=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX))
    owner: Mapped[str | None] = mapped_column(String(ID_LENGTH), index=True)
    scopes: Mapped[list[Any]] = mapped_column(JSON)
    tiers: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    networks: Mapped[list[Any]] = mapped_column(JSON)
    created_by: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX))
    created_ms: Mapped[int]
    expires_ms: Mapped[int | None]
    revoked_ms: Mapped[int | None]


class KeySecret(Base):
    """What a key is known by: `digest` is `<pepper version>:<hex>` of the whole key, which is not kept. While a key is
    rotated it has two, and the older one `expires_ms`.
    """

    __tablename__ = "key_secrets"

    digest: Mapped[str] = mapped_column(String(96), primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"), index=True)
    hint: Mapped[str] = mapped_column(String(8))
    created_ms: Mapped[int]
    expires_ms: Mapped[int | None]


class Limit(Base):
    """One number that bounds a plan, an organisation, a workspace or a key; `tier` empty: all tiers together. `kind` is
    a core.queue.rules.RuleKind; spending is in nano-units.
    """

    __tablename__ = "limits"
    __table_args__ = (UniqueConstraint("subject_kind", "subject_id", "tier", "kind", "hard"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    subject_kind: Mapped[str] = mapped_column(String(16))
    subject_id: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX))
    tier: Mapped[str] = mapped_column(String(TIER_LENGTH_MAX))
    kind: Mapped[str] = mapped_column(String(32))
    value: Mapped[int]
    hard: Mapped[bool]
    created_ms: Mapped[int]


class AuditEntry(Base):
    """Who did what, to what, from where; never a secret. Append-only: a trigger refuses changes and deletions."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index(None, "organisation", "id"),
        Index("ix_audit_log_organisation_action_id", "organisation", "action", "id"),
        Index("ix_audit_log_action_id", "action", "id"),
        Index("ix_audit_log_actor_id_id", "actor_id", "id"),
        Index("ix_audit_log_target_id_id", "target_id", "id"),
        Index("ix_audit_log_at_ms", "at_ms"),
    )

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    at_ms: Mapped[int]
    actor_kind: Mapped[str] = mapped_column(String(16))
    actor_id: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX))
    actor_name: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX))
    organisation: Mapped[str] = mapped_column(String(ID_LENGTH))
    action: Mapped[str] = mapped_column(String(64))
    target_kind: Mapped[str] = mapped_column(String(32))
    target_id: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX))
    before: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    after: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    address: Mapped[str] = mapped_column(String(64))
    request_id: Mapped[str] = mapped_column(String(64))
