"""Who may use the platform: organisation > workspace > API key, and the plans that bound them."""

from typing import Any

from sqlalchemy import JSON, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.db import Base

ID_LENGTH = 32
NAME_LENGTH_MAX = 128


class Plan(Base):
    """Limits that every organisation on it has. Seeded from tramontane.toml once; from then on SQL is the truth."""

    __tablename__ = "plans"

    name: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX), primary_key=True)
    requests_per_minute: Mapped[int]
    tokens_per_minute: Mapped[int]
    concurrency: Mapped[int]
    credit_nano: Mapped[int]
    weight: Mapped[int]


class Organisation(Base):
    """Who pays. `generation` rises with every administrative change that a cached principal must not outlive."""

    __tablename__ = "organisations"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX), unique=True)
    plan: Mapped[str] = mapped_column(ForeignKey("plans.name"))
    generation: Mapped[int]
    created_ms: Mapped[int]


class Workspace(Base):
    __tablename__ = "workspaces"
    __table_args__ = (UniqueConstraint("organisation_id", "name"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    name: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX))
    created_ms: Mapped[int]


class ApiKey(Base):
    """`id` is the public part of the key; `digest` is `<pepper version>:<hex>` of the whole key, which is not kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), index=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX))
    digest: Mapped[str] = mapped_column(String(96))
    hint: Mapped[str] = mapped_column(String(8))
    scopes: Mapped[list[Any]] = mapped_column(JSON)
    created_ms: Mapped[int]
    expires_ms: Mapped[int | None]
    revoked_ms: Mapped[int | None]
