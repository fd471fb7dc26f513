"""Credit accounts against everything that says the same in another way."""

from collections.abc import Mapping

from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from billing.accounts import CreditAccount, CreditHold
from billing.grants import Grant
from billing.journal import balances, prepaid, receivable
from billing.money import show_amount


def check_accounts(session: Session) -> list[str]:
    """What does not agree, one sentence each: every account with the journal, with its holds, with its grants."""
    booked = balances(session, "prepaid:") | balances(session, "receivable:")
    held = _sums(session, CreditHold.organisation, CreditHold.held_nano)
    remaining = _sums(session, Grant.organisation, Grant.remaining_nano)
    accounts = list(session.scalars(select(CreditAccount).order_by(CreditAccount.organisation)))
    problems = []
    for account in accounts:
        name = account.organisation
        paid, owed = booked.pop(prepaid(name), 0), booked.pop(receivable(name), 0)
        problems += _unless(f"{name}: balance and journal", account.posted_nano, paid + owed)
        problems += _unless(f"{name}: held and holds", account.held_nano, held.pop(name, 0))
        problems += _unless(f"{name}: grants and journal", remaining.pop(name, 0), paid)
        if owed > 0:
            problems.append(f"{name}: the journal owes {show_amount(owed)} as receivable")
        if account.posted_nano - account.held_nano + account.limit_nano < 0:
            problems.append(f"{name}: more is held than there is")
    return problems + [
        f"{name} without a credit account" for name in sorted({*booked, *_some(held), *_some(remaining)})
    ]


def _unless(what: str, one_nano: int, other_nano: int) -> list[str]:
    same = one_nano == other_nano
    return [] if same else [f"{what} differ: {show_amount(one_nano)} and {show_amount(other_nano)}"]


def _some(sums: Mapping[str, int]) -> list[str]:
    return [name for name, amount_nano in sums.items() if amount_nano]


def _sums(session: Session, name: InstrumentedAttribute[str], amount: InstrumentedAttribute[int]) -> dict[str, int]:
    query = select(name, cast(func.sum(amount), BigInteger)).group_by(name)
    return {row[0]: row[1] for row in session.execute(query)}
