"""The check finds each way in which books can disagree, and nothing where they agree."""

import contextlib
import os
import shutil
from dataclasses import replace

import msgpack
import pytest
from sqlalchemy import text, update

from billing.accounts import CreditHold
from billing.check import FINDINGS_MAX, Findings, check_books
from billing.check_cell import check_cell
from billing.models import UsageSpan
from billing.prices import PriceVersion
from billing.records import store
from billing.rollups import HOUR_MS
from billing.seal import seal_closed_hours
from billing.transfers import CreditTransfer
from core.db import connect_database
from core.meter.cost import cost_nano
from core.meter.credit_redis import RedisCreditStore
from core.meter.keys import cell_key
from core.redis import connect
from migrations.run import migrate
from tests.books import fund
from tests.databases import BACKENDS, new_postgres_database
from tests.usage_events import EPOCH, usage_event

START_MS = 1_700_000_000_000
NOW_MS = START_MS + 10 * HOUR_MS
PRICE = {"input_nano": 140_000, "cached_nano": 70_000, "output_nano": 420_000}
CELL = "c0"


def priced(number, **changes):
    event = usage_event(
        number, admitted_ms=START_MS + number * 60_000, settled_ms=START_MS + number * 61_000, **changes
    )
    cost = cost_nano(event.prompt_tokens, event.cached_tokens, event.completion_tokens, **PRICE)
    return replace(event, cost_nano=cost)


@pytest.fixture(scope="module", params=BACKENDS)
def template(request, tmp_path_factory):
    """(backend, where the filled database is): each test gets a copy."""
    if request.param == "sqlite":
        file = tmp_path_factory.mktemp("books") / "template.sqlite3"
        fill(f"sqlite:///{file}")
        yield request.param, file
        return
    name = f"books_{os.getpid()}"
    with new_postgres_database(request.getfixturevalue("postgres_server"), name) as url:
        fill(url)
        yield request.param, name


@pytest.fixture
def books(template, request, tmp_path):
    backend, source = template
    if backend == "sqlite":
        urls = contextlib.nullcontext(f"sqlite:///{shutil.copy(source, tmp_path)}")
    else:
        urls = new_postgres_database(request.getfixturevalue("postgres_server"), f"{source}_copy", source)
    with urls as url:
        database = connect_database(url)
        yield database
        database.close()


def fill(url):
    """Two organisations, three batches over some hours, one batch lost with its epoch; sealed."""
    migrate(url)
    database = connect_database(url)
    fund(database, "o1", "o2")
    with database.unit_of_work() as session:
        session.add(
            PriceVersion(
                version="launch", tier="mistral-tiny", plan="", organisation="", start_ms=0, created_ms=0, note="",
                batch_percent=100, **PRICE,
            )
        )  # fmt: skip
    for batch in range(3):
        events = [priced(number, organisation=f"o{1 + number % 2}") for number in range(batch * 60, batch * 60 + 60)]
        store(database, events, START_MS + batch * HOUR_MS)
    store(database, [priced(500, epoch=99), priced(502, outcome="failed", prompt_tokens=0, completion_tokens=0,
                                                   cached_tokens=0)], START_MS + 3 * HOUR_MS)  # fmt: skip
    with database.unit_of_work() as session:
        assert seal_closed_hours(session, NOW_MS) > 0
    database.close()


def findings_of(database, since_ms=0):
    findings = Findings()
    check_books(database, since_ms, findings)
    return findings


def wrong(database, since_ms=0):
    return {name for name, count in findings_of(database, since_ms).counts.items() if count}


def without_triggers(session, table):
    """As somebody with the rights of the database's owner would do it."""
    if session.connection().dialect.name == "postgresql":
        session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
        return
    names = session.scalars(text(f"SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = '{table}'"))
    for name in list(names):
        session.execute(text(f"DROP TRIGGER {name}"))


def test_books_in_order_have_no_findings(books):
    findings = findings_of(books)
    assert findings.ok, findings.kept
    assert findings.looked_at["records"] == 182
    assert findings.looked_at["transactions"] == 7
    assert findings.looked_at["hours"] >= 3
    assert findings.skipped == []


@pytest.mark.parametrize(
    ("table", "statement", "finds"),
    [
        ("ledger_entries", "UPDATE ledger_entries SET amount_nano = amount_nano + 1 WHERE line = 0",
         {"journal", "accounts", "seals"}),
        ("ledger_entries", "DELETE FROM ledger_entries WHERE account LIKE 'revenue:lost'",
         {"journal", "seals", "transactions"}),
        ("ledger_transactions", "UPDATE ledger_transactions SET note = 'x' WHERE id = 3", {"seals"}),
        ("ledger_transactions", "UPDATE ledger_transactions SET kind = 'topup' WHERE kind = 'usage'",
         {"journal", "seals", "records"}),
        ("ledger_hours", "UPDATE ledger_hours SET amount_nano = amount_nano + 1", {"journal"}),
        ("revenue_days", "UPDATE revenue_days SET cost_nano = cost_nano + 1", {"rollups"}),
        ("revenue_months", "DELETE FROM revenue_months", {"rollups"}),
        ("usage_records", "UPDATE usage_records SET cost_nano = cost_nano + 1 WHERE request_id LIKE '%5'",
         {"transactions", "rollups", "prices"}),
        ("usage_records", "UPDATE usage_records SET completion_tokens = 9999 WHERE request_id LIKE '%5'",
         {"rollups", "prices"}),
        ("usage_records", "UPDATE usage_records SET transaction_id = NULL WHERE request_id LIKE '%5'",
         {"transactions", "records"}),
        ("usage_records", "DELETE FROM usage_records WHERE request_id LIKE '%5'", {"transactions", "rollups"}),
        ("usage_records", "UPDATE usage_records SET price_version = 'unknown' WHERE request_id LIKE '%5'",
         {"prices"}),
        ("credit_accounts", "UPDATE credit_accounts SET posted_nano = posted_nano + 1", {"accounts"}),
        ("credit_holds", "UPDATE credit_holds SET held_nano = held_nano - 1", {"accounts"}),
        ("grants", "UPDATE grants SET remaining_nano = remaining_nano - 1", {"accounts"}),
        ("usage_spans", "UPDATE usage_spans SET cost_nano = cost_nano + 1", {"rollups"}),
        ("usage_spans", "DELETE FROM usage_spans WHERE organisation = 'o2'", {"rollups"}),
        ("usage_hours", "UPDATE usage_hours SET requests = requests + 1", {"rollups"}),
    ],
)  # fmt: skip
def test_each_disagreement_is_found(books, table, statement, finds):
    with books.unit_of_work() as session:
        without_triggers(session, table)
        session.execute(text(statement))
    assert wrong(books) == finds


def test_a_roll_up_of_nothing_is_found(books):
    with books.unit_of_work() as session:
        span = session.query(UsageSpan).first()
        values = {column.key: getattr(span, column.key) for column in UsageSpan.__mapper__.columns}
        session.add(UsageSpan(**values | {"start_ms": START_MS // HOUR_MS * HOUR_MS + 50 * HOUR_MS}))
    assert wrong(books) == {"rollups"}


def test_many_findings_are_counted_and_few_are_kept(books):
    with books.unit_of_work() as session:
        without_triggers(session, "usage_records")
        session.execute(text("UPDATE usage_records SET price_version = 'x' WHERE cost_nano > 0"))
    findings = findings_of(books)
    assert findings.counts["prices"] > FINDINGS_MAX
    assert len(findings.kept) == FINDINGS_MAX
    assert not findings.ok


def test_only_what_is_young_is_looked_at_in_detail(books):
    with books.unit_of_work() as session:
        session.execute(
            update(UsageSpan).where(UsageSpan.start_ms < START_MS + HOUR_MS).values(requests=UsageSpan.requests + 1)
        )
    assert wrong(books) == {"rollups"}
    young = findings_of(books, START_MS + 3 * HOUR_MS)
    assert young.ok
    assert young.looked_at["records"] < 182


# What Redis holds


@pytest.fixture
async def cell(books, bundled_socket):
    """Redis has, free, what SQL holds for it."""
    client = connect(f"unix://{bundled_socket}", 5.0)
    await client.flushall()
    credit = RedisCreditStore(client, CELL)
    assert await credit.open_epoch(EPOCH)
    for organisation in ("o1", "o2"):
        with books.reading() as session:
            held = session.get(CreditHold, (organisation, EPOCH)).held_nano
        assert await credit.give(f"first-{organisation}", organisation, EPOCH, held)
    yield client, credit
    await credit.close()
    await client.aclose()


async def holds(books, client):
    findings = Findings()
    await check_cell(books, client, CELL, findings)
    return findings


async def append(client, event):
    """As settling does."""
    fields = [getattr(event, name) for name in event.__slots__]
    await client.xadd(f"{cell_key(CELL)}:usage", {"u": msgpack.packb(fields)})


async def test_what_is_held_is_what_redis_has(books, cell):
    client, _ = cell
    findings = await holds(books, client)
    assert findings.ok, findings.kept
    assert findings.looked_at["organisations"] == 2


async def test_credit_that_came_back_is_found(books, cell):
    client, credit = cell
    await credit.give("from nowhere", "o2", EPOCH, 5)
    findings = await holds(books, client)
    assert findings.counts["holds"] == 1
    assert "o2" in findings.kept[0].sentence


async def test_usage_that_was_lost_on_the_way_is_found(books, cell):
    client, credit = cell
    await credit.take_back("spent", "o1", EPOCH, 7_000)
    assert (await holds(books, client)).counts["holds"] == 1
    await append(client, usage_event(900, cost_nano=7_000))
    assert (await holds(books, client)).ok


async def test_usage_that_is_booked_and_not_acknowledged_counts_once(books, cell):
    client, credit = cell
    late = priced(900)
    await credit.take_back("spent", "o1", EPOCH, late.cost_nano)
    await append(client, late)
    store(books, [late], NOW_MS)
    assert (await holds(books, client)).ok


async def test_credit_on_its_way_may_be_on_either_side(books, cell):
    client, credit = cell

    def move(amount, kind, state):
        with books.unit_of_work() as session:
            session.add(CreditTransfer(id="t1", organisation="o1", epoch=EPOCH, kind=kind, amount_nano=amount,
                                       state=state, created_ms=NOW_MS, done_ms=None))  # fmt: skip

    move(100, "return", "asked")
    assert (await holds(books, client)).ok
    await credit.take_back("t1", "o1", EPOCH, 100)
    assert (await holds(books, client)).ok
    await credit.take_back("t2", "o1", EPOCH, 1)
    assert (await holds(books, client)).counts["holds"] == 1


async def test_a_backlog_is_told_and_not_a_finding(books, cell, monkeypatch):
    client, _ = cell
    monkeypatch.setattr("core.meter.cell_books.EVENTS_MAX", 1)
    for number in range(3):
        await append(client, usage_event(900 + number))
    findings = await holds(books, client)
    assert findings.ok
    assert "wait to be collected" in findings.skipped[0]
