"""Tables of the console's chat. A conversation is its owner's alone: no role and no operator reads another's."""

from sqlalchemy import Double, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from core.db import Base
from gateway.accounts.models import ID_LENGTH, TIER_LENGTH_MAX

TITLE_LENGTH_MAX = 120
NOTE_LENGTH_MAX = 300
USER, ASSISTANT = "user", "assistant"


class Chat(Base):
    """`tier` and sampling are what the next turn is asked with; None: as the tier says. `leaf` is the turn that ends
    the branch last looked at, 0 before the first.
    """

    __tablename__ = "conversations"
    __table_args__ = (Index(None, "user_id", "organisation_id", "updated_ms"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    title: Mapped[str] = mapped_column(String(TITLE_LENGTH_MAX))
    tier: Mapped[str] = mapped_column(String(TIER_LENGTH_MAX))
    system: Mapped[str] = mapped_column(Text)
    temperature: Mapped[float | None] = mapped_column(Double)
    top_p: Mapped[float | None] = mapped_column(Double)
    max_tokens: Mapped[int | None]
    seed: Mapped[int | None]
    leaf: Mapped[int]
    created_ms: Mapped[int]
    updated_ms: Mapped[int]


class Turn(Base):
    """One message. `parent` is the turn it follows, 0 at the beginning: turns with the same parent are versions of one
    another, so an edit or a retry keeps what was there. Tokens and cost of an answer are None where its end was not
    seen: the usage record with this `request_id` tells them. `note`: why an answer is not whole, in words.
    """

    __tablename__ = "turns"

    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent: Mapped[int]
    role: Mapped[str] = mapped_column(String(16))
    content: Mapped[str] = mapped_column(Text)
    tier: Mapped[str] = mapped_column(String(TIER_LENGTH_MAX))
    prompt_tokens: Mapped[int | None]
    cached_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    cost_nano: Mapped[int | None]
    request_id: Mapped[str] = mapped_column(String(64))
    finish_reason: Mapped[str] = mapped_column(String(32))
    note: Mapped[str] = mapped_column(String(NOTE_LENGTH_MAX))
    at_ms: Mapped[int]
