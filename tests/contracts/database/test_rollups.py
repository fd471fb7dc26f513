"""Roll-ups say what the records say, to the byte, in whatever order and batches these came."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, update

from billing.models import UsageHour, UsageRecord, UsageSpan
from billing.records import store
from billing.rollups import HOUR_MS, SPAN_MS, hour_from_records, hour_stored, rebuild_hour
from billing.sketch import BOUNDS_MS, VALUE_MS_MAX, bucket_of, pack_sketch, quantile_ms, unpack_sketch
from tests.books import fund, rows_of, sum_of
from tests.usage_events import usage_event

FIRST_HOUR_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS
NOW_MS = FIRST_HOUR_MS + 10 * HOUR_MS
NAMES = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_nano", "loss_nano")
KEY = ("organisation", "start_ms", "workspace", "key_id", "tier")
OUTCOMES = ("finished", "finished", "finished", "cancelled", "failed", "timeout", "gateway_lost")


def some_events(seed: int, count: int = 300):
    """Over three hours, some exactly on a boundary."""
    chance = random.Random(seed)
    events = []
    for number in range(count):
        admitted_ms = FIRST_HOUR_MS + chance.choice((chance.randrange(3 * HOUR_MS), SPAN_MS * chance.randrange(12)))
        taken_ms = admitted_ms + chance.randrange(5_000)
        first_token_ms = chance.choice((0, chance.randrange(1, 3_000)))
        events.append(
            usage_event(
                number,
                organisation=chance.choice(("o1", "o2")),
                workspace=chance.choice(("w1", "w2")),
                key_id=f"k{chance.randrange(4)}",
                tier=chance.choice(("a", "b")),
                outcome=chance.choice(OUTCOMES),
                cost_nano=chance.randrange(10**9),
                admitted_ms=admitted_ms,
                taken_ms=taken_ms,
                first_token_ms=first_token_ms,
                settled_ms=taken_ms + first_token_ms + chance.randrange(20_000),
            )
        )
    return events


@pytest.fixture
def events(database):
    fund(database, "o1", "o2")
    events = some_events(1)
    for at in range(0, len(events), 40):
        store(database, events[at : at + 40], NOW_MS)
    return events


def spans(database):
    return rows_of(database, UsageSpan, UsageSpan.organisation, UsageSpan.start_ms, UsageSpan.workspace,
                   UsageSpan.key_id, UsageSpan.tier)  # fmt: skip


def test_sums_are_those_of_the_records(database, events):
    found, records = spans(database), rows_of(database, UsageRecord, UsageRecord.request_id)
    assert sum_of(found, *NAMES) == sum_of(records, *NAMES)
    assert sum_of(rows_of(database, UsageHour), *NAMES) == sum_of(records, *NAMES)
    assert sum_of(found, "requests") == (len(events),)
    failed = sum(event.outcome in {"failed", "timeout", "gateway_lost"} for event in events)
    assert sum_of(found, "failed") == (failed,)
    assert sum(unpack_sketch(row["total_sketch"]).total() for row in found) == len(events)
    begun = sum(event.first_token_ms > 0 for event in events)
    assert sum(unpack_sketch(row["first_token_sketch"]).total() for row in found) == begun


def test_hours_are_the_sums_of_their_quarters(database, events):
    quarters = {}
    for row in spans(database):
        key = (row["organisation"], row["start_ms"] // HOUR_MS * HOUR_MS, row["workspace"], row["key_id"], row["tier"])
        quarters.setdefault(key, []).append(row)
    names = (*NAMES, "requests", "failed")
    hours = {tuple(row[name] for name in KEY): row for row in rows_of(database, UsageHour)}
    assert {key: sum_of([row], *names) for key, row in hours.items()} == {
        key: sum_of(rows, *names) for key, rows in quarters.items()
    }


def test_a_request_counts_where_it_was_admitted(database):
    fund(database, "o1")
    last = usage_event(1, admitted_ms=FIRST_HOUR_MS + SPAN_MS - 1, settled_ms=FIRST_HOUR_MS + HOUR_MS)
    first = usage_event(2, admitted_ms=FIRST_HOUR_MS + SPAN_MS, settled_ms=FIRST_HOUR_MS + HOUR_MS)
    store(database, [last, first], NOW_MS)
    assert [row["start_ms"] for row in spans(database)] == [FIRST_HOUR_MS, FIRST_HOUR_MS + SPAN_MS]


def test_a_repeated_event_adds_nothing(database, events):
    before = spans(database)
    assert store(database, events[10:60], NOW_MS) == 0
    assert spans(database) == before


def test_rebuilt_from_nothing_they_are_what_batches_made_of_them(database, events):
    before = spans(database)
    with database.unit_of_work() as session:
        session.execute(delete(UsageSpan))
        session.execute(delete(UsageHour))
        wrong = [rebuild_hour(session, FIRST_HOUR_MS + hour * HOUR_MS) for hour in range(3)]
    assert sum(wrong) == len(before) + len(rows_of(database, UsageHour))
    assert spans(database) == before


def test_a_rebuild_of_what_is_right_writes_nothing_and_is_equal_to_the_byte(database, events):
    for hour in range(3):
        hour_ms = FIRST_HOUR_MS + hour * HOUR_MS
        with database.unit_of_work() as session:
            assert hour_stored(session, hour_ms) == hour_from_records(session, hour_ms) != []
            assert rebuild_hour(session, hour_ms) == 0


def test_a_rebuild_mends_what_is_wrong_and_leaves_other_hours_alone(database, events):
    before, hours = spans(database), rows_of(database, UsageHour, *map(UsageHour.__table__.c.get, KEY))
    with database.unit_of_work() as session:
        session.execute(update(UsageHour).where(UsageHour.start_ms == FIRST_HOUR_MS).values(cost_nano=0))
        session.execute(update(UsageSpan).values(requests=UsageSpan.requests + 1, total_sketch=pack_sketch({})))
        assert rebuild_hour(session, FIRST_HOUR_MS) > 0
    assert rows_of(database, UsageHour, *map(UsageHour.__table__.c.get, KEY)) == hours
    ends_ms = FIRST_HOUR_MS + HOUR_MS
    assert [row for row in spans(database) if row["start_ms"] < ends_ms] == [
        row for row in before if row["start_ms"] < ends_ms
    ]
    assert all(row["total_sketch"] == pack_sketch({}) for row in spans(database) if row["start_ms"] >= ends_ms)


def test_a_late_event_joins_an_hour_that_was_rebuilt(database, events):
    with database.unit_of_work() as session:
        rebuild_hour(session, FIRST_HOUR_MS)
    store(database, [usage_event(9_999, admitted_ms=FIRST_HOUR_MS + 1, settled_ms=FIRST_HOUR_MS + 5)], NOW_MS)
    with database.unit_of_work() as session:
        assert rebuild_hour(session, FIRST_HOUR_MS) == 0


@given(st.lists(st.integers(min_value=0, max_value=VALUE_MS_MAX), min_size=1), st.floats(min_value=0, max_value=1))
def test_a_quantile_is_never_too_low_and_at_most_a_tenth_too_high(values, share):
    counts = {}
    for value in values:
        counts[bucket_of(value)] = counts.get(bucket_of(value), 0) + 1
    ordered = sorted(values)
    true = next(value for at, value in enumerate(ordered, 1) if at >= share * len(ordered))
    found = quantile_ms(counts, share)
    assert true <= found <= max(true + 1, true * 1.1)


def test_sketches_keep_few_buckets_and_nothing_is_lost_beyond_the_last():
    assert len(BOUNDS_MS) < 160
    assert BOUNDS_MS[bucket_of(10**12)] == VALUE_MS_MAX
    assert bucket_of(-5) == 0
    assert quantile_ms({}, 0.5) is None
    counts = {3: 5, 1: 2}
    assert unpack_sketch(pack_sketch(counts)) == counts
    assert pack_sketch({1: 2, 3: 5}) == pack_sketch(counts)
