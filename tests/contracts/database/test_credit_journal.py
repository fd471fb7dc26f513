"""The journal and its seals, on both databases: whole transactions, once each, and no change without a trace."""

import threading

import pytest
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from billing.calendar import HOUR_MS
from billing.journal import (
    CASH,
    PROMO,
    Entry,
    LedgerEntry,
    LedgerSeal,
    LedgerTransaction,
    balance,
    balances,
    book,
    check_journal,
    prepaid,
    receivable,
)
from billing.seal import SETTLING_MS, seal_closed_hours, verify_seals
from core.errors import CONFLICT, PlatformError

HOUR = 1_700_000_000_000 // HOUR_MS * HOUR_MS


def paid(amount_nano, organisation="o1"):
    return (Entry(CASH, -amount_nano), Entry(prepaid(organisation), amount_nano))


def put(database, key, entries=None, booked_ms=HOUR, **changes):
    with database.unit_of_work() as session:
        fields = {"kind": "topup", "organisation": "o1", "entries": entries or paid(5), "booked_ms": booked_ms}
        return book(session, key=key, **{**fields, **changes})


def test_the_same_key_is_the_same_transaction(database):
    first, second = put(database, "k"), put(database, "other")
    assert put(database, "k", booked_ms=HOUR + 1, note="again") == first != second
    for change in ({"entries": paid(6)}, {"kind": "promo"}, {"organisation": "o2", "entries": paid(5, "o2")}):
        with pytest.raises(PlatformError) as caught:
            put(database, "k", **change)
        assert caught.value.kind is CONFLICT
    with database.reading() as session:
        assert balances(session) == {"cash": -10, "prepaid:o1": 10}
        assert balances(session, "prepaid:") == {"prepaid:o1": 10}
        assert (balance(session, CASH), balance(session, PROMO)) == (-10, 0)
        assert check_journal(session) == []


def test_the_same_key_many_times_at_once(database):
    found = []
    barrier = threading.Barrier(6)

    def run():
        barrier.wait(10)
        found.append(put(database, "k"))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 6
    assert len(set(found)) == 1
    with database.reading() as session:
        assert balance(session, prepaid("o1")) == 5


@pytest.mark.parametrize(
    "entries",
    [
        (),
        (Entry(CASH, -5), Entry(prepaid("o1"), 6)),
        (Entry(CASH, 0), Entry(prepaid("o1"), 0)),
        (Entry(CASH, -5), Entry(CASH, 5)),
        (Entry(CASH, -5), Entry(prepaid("o2"), 5)),
        (Entry("mine", -5), Entry(receivable("o1"), 5)),
        (Entry(CASH, -(2**53)), Entry(prepaid("o1"), 2**53)),
    ],
)
def test_what_is_no_transaction_is_refused(sqlite_database, entries):
    with pytest.raises(ValueError, match=r"transaction|entry"), sqlite_database.unit_of_work() as session:
        book(session, key="k", kind="topup", organisation="o1", entries=entries, booked_ms=HOUR)
    with sqlite_database.reading() as session:
        assert session.scalars(select(LedgerTransaction)).all() == []


@pytest.mark.parametrize("table", [LedgerTransaction, LedgerEntry, LedgerSeal])
def test_nothing_is_changed_or_deleted(database, table):
    put(database, "k")
    with database.unit_of_work() as session:
        seal_closed_hours(session, HOUR + HOUR_MS + SETTLING_MS)
    column = {LedgerTransaction: "note", LedgerEntry: "amount_nano", LedgerSeal: "digest"}[table]
    for change in (update(table).values({column: 1}), delete(table)):
        with pytest.raises(IntegrityError, match="append-only"), database.unit_of_work() as session:
            session.execute(change)


@pytest.mark.parametrize("lines", [(), ((0, 5), (1, -4))])
def test_a_transaction_that_is_not_whole_is_refused_or_found(database, lines):
    """Postgres looks at the commit, SQLite at the check."""

    def sneak():
        with database.unit_of_work() as session:
            session.add(LedgerTransaction(key="k", kind="x", organisation="", booked_ms=HOUR, note=""))
            session.flush()
            own = session.scalars(select(LedgerTransaction.id)).one()
            for line, amount_nano in lines:
                values = {"transaction_id": own, "line": line, "account": CASH, "amount_nano": amount_nano}
                session.execute(insert(LedgerEntry).values(values))
            return session.connection().dialect.name

    if database._engine.dialect.name == "postgresql":
        with pytest.raises(IntegrityError, match="with the sum"):
            sneak()
        expected = []
    else:
        sneak()
        expected = [f"transaction 1 has {len(lines)} entries with the sum {sum(line[1] for line in lines)}"]
    with database.reading() as session:
        assert check_journal(session) == expected


def test_an_entry_added_later_is_refused_or_found(database):
    own = put(database, "k")
    late = insert(LedgerEntry).values(transaction_id=own, line=9, account=CASH, amount_nano=1)
    if database._engine.dialect.name == "postgresql":
        with pytest.raises(IntegrityError, match="with the sum"), database.unit_of_work() as session:
            session.execute(late)
        return
    with database.unit_of_work() as session:
        session.execute(late)
    with database.reading() as session:
        assert check_journal(session) == [f"transaction {own} has 3 entries with the sum 1"]


def sealed(database, now_ms):
    with database.unit_of_work() as session:
        return seal_closed_hours(session, now_ms)


def broken(database):
    with database.reading() as session:
        return verify_seals(session)


def test_closed_hours_are_sealed_once_and_in_a_chain(database):
    for number, at_ms in enumerate((HOUR, HOUR + 1, HOUR + 5 * HOUR_MS, HOUR + 6 * HOUR_MS)):
        put(database, f"k{number}", booked_ms=at_ms, note="é\n")
    closed_ms = HOUR + 6 * HOUR_MS + SETTLING_MS
    assert sealed(database, closed_ms - 1) == 1
    assert [sealed(database, closed_ms) for _ in range(2)] == [1, 0]
    assert sealed(database, closed_ms + HOUR_MS) == 1
    with database.reading() as session:
        seals = session.scalars(select(LedgerSeal).order_by(LedgerSeal.hour_ms)).all()
    assert [seal.transactions for seal in seals] == [2, 1, 1]
    assert [seal.previous for seal in seals] == ["0" * 64, seals[0].digest, seals[1].digest]
    assert broken(database) is None


def test_nothing_is_booked_into_a_sealed_hour(database):
    put(database, "k", booked_ms=HOUR)
    sealed(database, HOUR + HOUR_MS + SETTLING_MS)
    own = put(database, "late", booked_ms=HOUR + 7)
    with database.reading() as session:
        assert session.get_one(LedgerTransaction, own).booked_ms == HOUR + HOUR_MS
    assert broken(database) is None


@pytest.mark.parametrize(
    ("forgery", "hour"),
    [
        ("UPDATE ledger_entries SET amount_nano = 2 * amount_nano WHERE transaction_id = 1", 0),
        ("UPDATE ledger_transactions SET note = 'x' WHERE id = 2", 2),
        ("UPDATE ledger_seals SET digest = previous", 0),
        ("DELETE FROM ledger_entries WHERE transaction_id = 3", 3),
        (f"UPDATE ledger_transactions SET booked_ms = {HOUR + HOUR_MS} WHERE id = 1", 0),
        (f"INSERT INTO ledger_transactions VALUES (9, 'x', 'x', '', {HOUR + HOUR_MS}, '')", 2),
        ("DELETE FROM ledger_seals WHERE transactions = 1 AND hour_ms < (SELECT max(hour_ms) FROM ledger_seals)", 3),
    ],
)
def test_whoever_gets_around_the_triggers_is_found(sqlite_database, forgery, hour):
    for number, at in enumerate((0, 2, 3)):
        put(sqlite_database, f"k{number}", booked_ms=HOUR + at * HOUR_MS)
    assert sealed(sqlite_database, HOUR + 9 * HOUR_MS) == 3
    with sqlite_database.unit_of_work() as session:
        triggers = session.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all()
        for name in triggers:
            session.execute(text(f"DROP TRIGGER {name}"))
        session.execute(text(forgery))
    assert broken(sqlite_database) == HOUR + hour * HOUR_MS
