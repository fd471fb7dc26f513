"""Epochs as SQL knows them: one for each unbroken life of Redis."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from core.db import Base, insert_new

NOT_OPENED_MS = 0


class EpochRow(Base):
    """Begun here first; opened once Redis has it. Ended: admits nothing more. Closed: what it still held is free again,
    and what is used later is our loss.
    """

    __tablename__ = "epochs"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    opened_ms: Mapped[int]
    ended_ms: Mapped[int | None]
    closed_ms: Mapped[int | None]


@dataclass(frozen=True, slots=True)
class LastEpoch:
    """The highest number that stands here; 0: none."""

    number: int
    opened: bool


def last_epoch(session: Session) -> LastEpoch:
    query = select(EpochRow.number, EpochRow.opened_ms).order_by(EpochRow.number.desc()).limit(1)
    row = session.execute(query).first()
    return LastEpoch(0, opened=True) if row is None else LastEpoch(row[0], row[1] != NOT_OPENED_MS)


def begin_epoch(session: Session, seen: LastEpoch, known: int, now_ms: int) -> int | None:
    """The number to open in Redis, which knew `known` after `seen` was read here: one that was begun and never opened,
    else the next, and all before it end. None if somebody has begun another since: look again.
    """
    if last_epoch(session) != seen:
        return None
    if not seen.opened and seen.number > known:
        return seen.number
    number = max(known, seen.number) + 1
    row = {"number": number, "opened_ms": NOT_OPENED_MS, "ended_ms": None, "closed_ms": None}
    insert_new(session, EpochRow, [row], ["number"])
    session.execute(
        update(EpochRow).where(EpochRow.number < number, EpochRow.ended_ms.is_(None)).values(ended_ms=now_ms)
    )
    return number


def confirm_epoch(session: Session, number: int, now_ms: int) -> None:
    """It is open in Redis, so that its number is never opened again."""
    session.execute(
        update(EpochRow)
        .where(EpochRow.number == number, EpochRow.opened_ms == NOT_OPENED_MS)
        .values(opened_ms=max(1, now_ms))
    )


def due_epochs(session: Session, ended_before_ms: int) -> Sequence[EpochRow]:
    """Ended so long ago that none of their requests can still be running, and not closed yet."""
    query = select(EpochRow).where(EpochRow.ended_ms < ended_before_ms, EpochRow.closed_ms.is_(None))
    return session.scalars(query.order_by(EpochRow.number).with_for_update()).all()
