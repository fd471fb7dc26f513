"""Used credit: charged to its epoch's hold, taken from grants in their order, and booked, in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from billing.accounts import charge, lock_account
from billing.grants import GIVEN, Part, burn
from billing.journal import (
    LOSS,
    REVENUE_LOST,
    REVENUE_PAID,
    REVENUE_PROMO,
    Entry,
    book,
    booked,
    prepaid,
    receivable,
)


@dataclass(frozen=True, slots=True)
class UsageItem:
    """One settled request: what it cost by its pinned price, and the epoch whose credit was reserved for it."""

    request_id: str
    epoch: int
    cost_nano: int


@dataclass(frozen=True, slots=True)
class BookedUsage:
    """`transaction_id` None: nothing cost anything. `charged_nano` by request id; what a request cost beyond it is in
    the journal's loss. Empty if the key was booked before.
    """

    transaction_id: int | None
    charged_nano: Mapping[str, int]


def book_usage(
    session: Session,
    *,
    organisation: str,
    items: Sequence[UsageItem],
    open_epochs: frozenset[int],
    key: str,
    now_ms: int,
) -> BookedUsage:
    """Charge one organisation for a batch of requests that were never charged before. `open_epochs`: those that are
    not closed; usage of any other is our loss.
    """
    lock_account(session, organisation)
    known = booked(session, key)
    if known is not None:
        return BookedUsage(known, {})
    charged_nano = _charge(session, organisation, items, open_epochs)
    total_nano = sum(charged_nano.values())
    lost_nano = sum(item.cost_nano for item in items) - total_nano
    if total_nano + lost_nano == 0:
        return BookedUsage(None, charged_nano)
    entries = _entries(organisation, burn(session, organisation, total_nano), total_nano, lost_nano)
    transaction_id = book(session, key=key, kind="usage", organisation=organisation, entries=entries, booked_ms=now_ms)
    return BookedUsage(transaction_id, charged_nano)


def _charge(
    session: Session, organisation: str, items: Sequence[UsageItem], open_epochs: frozenset[int]
) -> dict[str, int]:
    """One change for each epoch; where it is not covered in full, earlier requests come first."""
    charged_nano: dict[str, int] = {}
    for epoch in sorted({item.epoch for item in items}):
        mine = [item for item in items if item.epoch == epoch]
        cost_nano = sum(item.cost_nano for item in mine)
        left_nano = charge(session, organisation, epoch, cost_nano, epoch_open=epoch in open_epochs).charged_nano
        for item in mine:
            charged_nano[item.request_id] = min(item.cost_nano, left_nano)
            left_nano -= charged_nano[item.request_id]
    assert len(charged_nano) == len(items), "a request is charged once"
    return charged_nano


def _entries(organisation: str, parts: Sequence[Part], charged_nano: int, lost_nano: int) -> tuple[Entry, ...]:
    burnt_nano = sum(part.amount_nano for part in parts)
    given_nano = sum(part.amount_nano for part in parts if part.kind in GIVEN)
    entries = (
        Entry(prepaid(organisation), -burnt_nano),
        Entry(receivable(organisation), burnt_nano - charged_nano),
        Entry(LOSS, -lost_nano),
        Entry(REVENUE_PAID, charged_nano - given_nano),
        Entry(REVENUE_PROMO, given_nano),
        Entry(REVENUE_LOST, lost_nano),
    )
    return tuple(entry for entry in entries if entry.amount_nano)
