"""From usage events to usage records: charged in the ledger, inserted, rolled up, in one SQL transaction."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from billing.briefs import add_to_briefs
from billing.days import add_to_days
from billing.epochs import EpochRow
from billing.models import UsageRecord
from billing.rollups import Counted, add_to_rollups, lock_books, mark_used
from billing.settling import UsageItem, book_usage
from core.db import Database
from core.meter.usage import UsageEvent

COLUMNS = tuple(field.name for field in fields(UsageEvent))
VALUES_OF = attrgetter(*COLUMNS)
COUNTED_OF = attrgetter(*Counted._fields[:9])  # up to cached_tokens; money is what was booked, not what came
TIMES_OF = attrgetter(*Counted._fields[11:])


def store(database: Database, events: Sequence[UsageEvent], now_ms: int) -> int:
    """Take in what is new, in one transaction; how many were new. Events that are there already change nothing."""
    with database.unit_of_work() as session:
        lock_books(session)
        new = _new(session, events)
        if new:
            _take_in(session, new, now_ms)
    return len(new)


def _new(session: Session, events: Sequence[UsageEvent]) -> list[UsageEvent]:
    """Without what SQL knows, and without twins within the batch; by request id."""
    by_id = {event.request_id: event for event in events}
    known = session.scalars(select(UsageRecord.request_id).where(UsageRecord.request_id.in_(by_id)))
    for request_id in known:
        del by_id[request_id]
    return [by_id[request_id] for request_id in sorted(by_id)]


def _take_in(session: Session, events: Sequence[UsageEvent], now_ms: int) -> None:
    charged = _book(session, events, now_ms)
    rows = []
    counted = []
    for event in events:
        charged_nano, transaction_id = charged.get(event.request_id, (0, None))
        loss_nano = event.cost_nano - charged_nano
        row = dict(zip(COLUMNS, VALUES_OF(event), strict=True))
        row |= {"cost_nano": charged_nano, "loss_nano": loss_nano, "transaction_id": transaction_id}
        rows.append(row)
        counted.append(Counted._make((*COUNTED_OF(event), charged_nano, loss_nano, *TIMES_OF(event))))
    session.execute(insert(UsageRecord), rows)
    add_to_rollups(session, counted)
    add_to_days(session, counted)
    add_to_briefs(session, counted)
    mark_used(session, counted)


def _book(session: Session, events: Sequence[UsageEvent], now_ms: int) -> dict[str, tuple[int, int | None]]:
    """One ledger transaction for each organisation that owes something: request id to (charged, transaction).

    Organisations come in the order of their ids, as everywhere where several accounts are locked.
    """
    items: dict[str, list[UsageItem]] = defaultdict(list)
    for event in events:
        if event.cost_nano:
            items[event.organisation].append(UsageItem(event.request_id, event.epoch, event.cost_nano))
    if not items:
        return {}
    open_epochs = frozenset(session.scalars(select(EpochRow.number).where(EpochRow.closed_ms.is_(None))))
    booked = {}
    for organisation in sorted(items):
        mine = items[organisation]
        answer = book_usage(
            session,
            organisation=organisation,
            items=mine,
            open_epochs=open_epochs,
            key=f"usage:{mine[0].request_id}",  # the first of its batch, and a request is in one batch only
            now_ms=now_ms,
        )
        for request_id, charged_nano in answer.charged_nano.items():
            booked[request_id] = (charged_nano, answer.transaction_id)
    return booked
