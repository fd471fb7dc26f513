"""Credit accounts: what an organisation has, and what of it is held for Redis. No call can overdraw one.

posted = balance(prepaid:ORG) + balance(receivable:ORG) of the journal, held = the sum of the holds by epoch, and
always posted - held + limit >= 0; `billing/account_check.py` verifies it. Each change locks the account's row first, so
whoever changes several organisations in one transaction does so in the order of their ids.
"""

from dataclasses import dataclass

from sqlalchemy import CheckConstraint, String, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Mapped, Session, mapped_column
from sqlalchemy.sql.dml import Update

from billing.money import AMOUNT_NANO_MAX, check_amount
from core.db import Base, insert_new


class CreditAccount(Base):
    __tablename__ = "credit_accounts"
    __table_args__ = (
        CheckConstraint("posted_nano - held_nano + limit_nano >= 0", name="covered"),
        CheckConstraint("held_nano >= 0", name="held"),
        CheckConstraint(f"limit_nano BETWEEN 0 AND {AMOUNT_NANO_MAX}", name="limit"),
        CheckConstraint(f"posted_nano + limit_nano <= {AMOUNT_NANO_MAX}", name="bounds"),
    )

    organisation: Mapped[str] = mapped_column(String(32), primary_key=True)
    posted_nano: Mapped[int]
    held_nano: Mapped[int]
    limit_nano: Mapped[int]


class CreditHold(Base):
    """What one epoch of Redis may still spend."""

    __tablename__ = "credit_holds"
    __table_args__ = (CheckConstraint("held_nano >= 0", name="held"),)

    organisation: Mapped[str] = mapped_column(String(32), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    held_nano: Mapped[int]


@dataclass(frozen=True, slots=True)
class Available:
    posted_nano: int
    held_nano: int
    limit_nano: int

    @property
    def available_nano(self) -> int:
        """What can still be held."""
        return self.posted_nano - self.held_nano + self.limit_nano


@dataclass(frozen=True, slots=True)
class Charged:
    """`lost_nano`: the part of the cost that no hold covered; we pay it."""

    charged_nano: int
    lost_nano: int


def available(session: Session, organisation: str) -> Available:
    """Zeros for an organisation without an account."""
    return _read(session, organisation, lock=False) or Available(0, 0, 0)


def lock_account(session: Session, organisation: str) -> Available:
    """Make the account if there is none; nobody else changes it until this transaction ends."""
    row = {"organisation": organisation, "posted_nano": 0, "held_nano": 0, "limit_nano": 0}
    insert_new(session, CreditAccount, [row], ["organisation"])
    found = _read(session, organisation, lock=True)
    assert found is not None, "made just now, or there before: accounts are never deleted"
    return found


def hold(session: Session, organisation: str, epoch: int, amount_nano: int) -> bool:
    """Set an amount aside for an epoch. False, and nothing is changed, if not so much is available."""
    check_amount(amount_nano)
    account = CreditAccount
    covered = account.posted_nano - account.held_nano + account.limit_nano >= amount_nano
    wanted = update(account).where(account.organisation == organisation, covered)
    if not _changes(session, wanted.values(held_nano=account.held_nano + amount_nano)):
        return False
    insert_new(
        session,
        CreditHold,
        [{"organisation": organisation, "epoch": epoch, "held_nano": 0}],
        ["organisation", "epoch"],
    )
    _change_hold(session, organisation, epoch, amount_nano)
    return True


def release(session: Session, organisation: str, epoch: int, amount_nano: int) -> int:
    """Make held credit available again; how much it was, at most what that epoch still holds."""
    check_amount(amount_nano)
    lock_account(session, organisation)
    released_nano = min(amount_nano, held(session, organisation, epoch))
    if released_nano:
        _change_account(session, organisation, held_nano=-released_nano)
        _change_hold(session, organisation, epoch, -released_nano)
    return released_nano


def charge(session: Session, organisation: str, epoch: int, cost_nano: int, *, epoch_open: bool) -> Charged:
    """Take a cost out of what its epoch holds. What is not covered, and all of it once the epoch is closed, is our
    loss: credit that is not held may be promised to others by now.
    """
    check_amount(cost_nano)
    lock_account(session, organisation)
    charged_nano = min(cost_nano, held(session, organisation, epoch)) if epoch_open else 0
    if charged_nano:
        _change_account(session, organisation, posted_nano=-charged_nano, held_nano=-charged_nano)
        _change_hold(session, organisation, epoch, -charged_nano)
    return Charged(charged_nano, cost_nano - charged_nano)


def post(session: Session, organisation: str, amount_nano: int) -> bool:
    """Change the balance; the caller books the same in the journal. False, and nothing is changed, if what is held
    would not be covered, or the balance would leave the bounds of exact numbers.
    """
    found = lock_account(session, organisation)
    covered = found.available_nano + amount_nano >= 0
    if not covered or found.posted_nano + amount_nano + found.limit_nano > AMOUNT_NANO_MAX:
        return False
    _change_account(session, organisation, posted_nano=amount_nano)
    return True


def set_limit(session: Session, organisation: str, limit_nano: int) -> bool:
    """How far the balance may go below 0; above 0 the organisation is postpaid. False, and nothing is changed, if more
    than that is used or held already, or the bounds of exact numbers would be left.
    """
    check_amount(limit_nano, param="limit")
    found = lock_account(session, organisation)
    if found.posted_nano - found.held_nano + limit_nano < 0 or found.posted_nano + limit_nano > AMOUNT_NANO_MAX:
        return False
    session.execute(
        update(CreditAccount).where(CreditAccount.organisation == organisation).values(limit_nano=limit_nano)
    )
    return True


def held(session: Session, organisation: str, epoch: int) -> int:
    """What this epoch may still spend."""
    query = select(CreditHold.held_nano).where(CreditHold.organisation == organisation, CreditHold.epoch == epoch)
    return session.execute(query).scalar_one_or_none() or 0


def _read(session: Session, organisation: str, *, lock: bool) -> Available | None:
    query = select(CreditAccount.posted_nano, CreditAccount.held_nano, CreditAccount.limit_nano).where(
        CreditAccount.organisation == organisation
    )
    row = session.execute(query.with_for_update() if lock else query).first()
    return None if row is None else Available(*row)


def _change_account(session: Session, organisation: str, *, posted_nano: int = 0, held_nano: int = 0) -> None:
    """The row is locked, and the constraints of the table have the last word."""
    account = CreditAccount
    session.execute(
        update(account)
        .where(account.organisation == organisation)
        .values(posted_nano=account.posted_nano + posted_nano, held_nano=account.held_nano + held_nano)
    )


def _change_hold(session: Session, organisation: str, epoch: int, amount_nano: int) -> None:
    session.execute(
        update(CreditHold)
        .where(CreditHold.organisation == organisation, CreditHold.epoch == epoch)
        .values(held_nano=CreditHold.held_nano + amount_nano)
    )


def _changes(session: Session, statement: Update) -> bool:
    result = session.execute(statement.execution_options(synchronize_session=False))
    assert isinstance(result, CursorResult)
    return result.rowcount == 1
