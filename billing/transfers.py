"""Credit on its way to Redis or back, under an id that both sides remember."""

from sqlalchemy import CheckConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from core.db import Base


class CreditTransfer(Base):
    __tablename__ = "credit_transfers"
    __table_args__ = (CheckConstraint("amount_nano >= 0", name="amount"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    organisation: Mapped[str] = mapped_column(String(32))
    epoch: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    amount_nano: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), index=True)
    created_ms: Mapped[int]
    done_ms: Mapped[int | None]
