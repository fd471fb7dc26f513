"""What billing keeps: usage records now; ledger, prices and roll-ups join them."""

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from core.db import Base


class UsageRecord(Base):
    """One settled request, as its usage event said. Append-only: a trigger refuses changes and deletions."""

    __tablename__ = "usage_records"
    __table_args__ = (
        Index(None, "admitted_ms"),
        Index(None, "key_id", "admitted_ms"),
        Index(None, "organisation", "admitted_ms"),
    )

    request_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    organisation: Mapped[str] = mapped_column(String(64))
    workspace: Mapped[str] = mapped_column(String(64))
    key_id: Mapped[str] = mapped_column(String(64))
    tier: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(32))
    outcome: Mapped[str] = mapped_column(String(32))
    attempt: Mapped[int]
    streamed: Mapped[bool]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    cached_tokens: Mapped[int]
    decoded_tokens: Mapped[int]
    cost_nano: Mapped[int]
    price_version: Mapped[str] = mapped_column(String(128))
    admitted_ms: Mapped[int]
    taken_ms: Mapped[int]
    first_token_ms: Mapped[int]
    settled_ms: Mapped[int]
