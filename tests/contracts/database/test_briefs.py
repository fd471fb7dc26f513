"""Roll-ups of roll-ups say what the records say: as the collector makes them, mended, and made by the migration."""

import random
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import delete, update

from billing.briefs import KeyDay, TierHour
from billing.days import rebuild_day, wrong_rows
from billing.models import UsageRecord
from billing.records import store
from billing.rollups import HOUR_MS, Counted, spans_of
from billing.usage import DAY_MS
from migrations.run import migrate
from tests.books import fund, rows_of, sum_of
from tests.usage_events import usage_event

ROOT = Path(__file__).parents[3]
FIRST_MS = 1_699_920_000_000  # a midnight, UTC
NAMES = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_nano")


def fill(database, count=200):
    fund(database, "o1", "o2")
    chance = random.Random(8)
    events = []
    for number in range(count):
        admitted_ms = FIRST_MS + chance.randrange(3 * DAY_MS)
        events.append(
            usage_event(
                number,
                organisation=chance.choice(("o1", "o2")),
                workspace=chance.choice(("w1", "w2")),
                tier=chance.choice(("a", "b")),
                kind=chance.choice(("chat", "fim")),
                outcome=chance.choice(("finished", "failed")),
                cost_nano=chance.randrange(10**9),
                admitted_ms=admitted_ms,
                taken_ms=admitted_ms + 3,
                first_token_ms=chance.choice((0, 90)),
                settled_ms=admitted_ms + chance.randrange(100, 9_000),
            )
        )
    for at in range(0, count, 37):  # in batches that add to each other's rows
        store(database, events[at : at + 37], FIRST_MS)


def expected_hours(database):
    """By the records: those of an hour together, as one span of all keys and kinds."""
    records = [
        Counted(**{name: row[name] for name in Counted._fields} | {"key_id": "", "kind": ""})
        for row in rows_of(database, UsageRecord)
    ]
    found = {}
    for record in records:
        key = (record.organisation, record.admitted_ms - record.admitted_ms % HOUR_MS, record.workspace, record.tier)
        found.setdefault(key, []).append(record)
    return {key: _one_span(members) for key, members in found.items()}


def _one_span(records):
    spans = list(spans_of(records).values())
    first, rest = spans[0], spans[1:]
    for span in rest:
        first.sums = [mine + theirs for mine, theirs in zip(first.sums, span.sums, strict=True)]
        first.first_token.update(span.first_token)
        first.total.update(span.total)
    return (*first.sums, *first.sketches())


def stored_hours(database):
    names = ("organisation", "start_ms", "workspace", "tier")
    sums = ("requests", "failed", *NAMES, "loss_nano", "first_token_sketch", "total_sketch")
    return {
        tuple(row[name] for name in names): tuple(row[name] for name in sums) for row in rows_of(database, TierHour)
    }


def test_hours_and_days_are_those_of_the_records(database):
    fill(database)
    assert stored_hours(database) == expected_hours(database)
    records, days = rows_of(database, UsageRecord), rows_of(database, KeyDay)
    assert sum_of(days, *NAMES) == sum_of(records, *NAMES)
    expected = {(row["organisation"], row["admitted_ms"] // DAY_MS, row["key_id"], row["tier"]) for row in records}
    assert {(row["organisation"], row["start_ms"] // DAY_MS, row["key_id"], row["tier"]) for row in days} == expected
    with database.reading() as session:
        assert [wrong_rows(session, FIRST_MS + day * DAY_MS) for day in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(
    "harm",
    [
        update(TierHour).where(TierHour.tier == "a").values(cost_nano=1),
        update(TierHour).where(TierHour.tier == "b").values(first_token_sketch=b"\x90"),
        delete(KeyDay),
        update(KeyDay).values(requests=KeyDay.requests + 1),
    ],
)
def test_what_is_wrong_is_found_and_mended(database, harm):
    fill(database)
    before = stored_hours(database), rows_of(database, KeyDay, *KeyDay.__table__.primary_key)
    with database.unit_of_work() as session:
        session.execute(harm)
    with database.unit_of_work() as session:
        assert wrong_rows(session, FIRST_MS) > 0
        assert sum(rebuild_day(session, FIRST_MS + day * DAY_MS) for day in range(3)) > 0
    assert (stored_hours(database), rows_of(database, KeyDay, *KeyDay.__table__.primary_key)) == before


def test_the_migration_makes_them_of_what_is_there(database, database_url, monkeypatch):
    fill(database)
    before = stored_hours(database), rows_of(database, KeyDay, *KeyDay.__table__.primary_key)
    monkeypatch.setenv("TRAMONTANE_DATABASE_URL", database_url)
    command.downgrade(Config(ROOT / "alembic.ini"), "0009")
    migrate(database_url)
    assert (stored_hours(database), rows_of(database, KeyDay, *KeyDay.__table__.primary_key)) == before
