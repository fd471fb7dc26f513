"""Organisations with credit that is lent to an epoch, so that usage can be booked."""

from sqlalchemy import select

from billing.accounts import hold
from billing.epochs import EpochRow
from billing.grants import top_up
from core.clock import ManualClock
from core.db import Database
from tests.usage_events import EPOCH

CREDIT_NANO = 4 * 10**15


def fund(database: Database, *organisations: str, nano: int = CREDIT_NANO, epoch: int = EPOCH) -> None:
    """All of it is held for the epoch, which is open."""
    with database.unit_of_work() as session:
        if session.get(EpochRow, epoch) is None:
            session.add(EpochRow(number=epoch, opened_ms=1, ended_ms=None, closed_ms=None))
            session.flush()
        for organisation in sorted(organisations):
            top_up(session, organisation, nano, key="test", clock=ManualClock())
            assert hold(session, organisation, epoch, nano)


def rows_of(database: Database, model, *order) -> list[dict[str, object]]:
    with database.reading() as session:
        columns = [column.key for column in model.__mapper__.columns]
        return [
            {name: getattr(found, name) for name in columns}
            for found in session.scalars(select(model).order_by(*order))
        ]


def sum_of(rows, *names):
    return tuple(sum(row[name] for row in rows) for name in names)
