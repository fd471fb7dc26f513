"""Reports equal the records in any time zone, grouping and page size; files say the same."""

import contextlib
import csv
import io
import json
import os
import random
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from billing.calendar import days, months
from billing.export import LINE_FIELDS, RECORD_FIELDS, csv_page, jsonl_page, line_pages, record_pages, shown_line
from billing.models import UsageRecord
from billing.records import store
from billing.rollups import HOUR_MS, SPAN_MS
from billing.usage import DAY_MS, Dimension, Period, UsageQuery, check_query, group_key, latencies, report
from core.db import connect_database
from core.errors import PlatformError
from migrations.run import migrate
from tests.books import fund, rows_of, sum_of
from tests.databases import BACKENDS, new_postgres_database
from tests.usage_events import usage_event

# Around the change of clocks in Europe, in America and on Lord Howe, and over two ends of a month.
FROM_MS = round(datetime(2026, 10, 2, tzinfo=UTC).timestamp() * 1000)
TO_MS = round(datetime(2026, 11, 5, tzinfo=UTC).timestamp() * 1000)
ZONES = (
    "UTC",
    "Europe/Rome",
    "America/New_York",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Kiritimati",
)
NAMES = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_nano")
ALL = tuple(Dimension)


@pytest.fixture(scope="module", params=BACKENDS)
def database(request, tmp_path_factory):
    """One for all tests, which only read."""
    if request.param == "sqlite":
        urls = contextlib.nullcontext(f"sqlite:///{tmp_path_factory.mktemp('report') / 'report.sqlite3'}")
    else:
        urls = new_postgres_database(request.getfixturevalue("postgres_server"), f"report_{os.getpid()}")
    with urls as url:
        migrate(url)
        database = connect_database(url)
        yield database
        database.close()


@pytest.fixture(scope="module")
def records(database):
    fund(database, "o1", "o2")
    chance = random.Random(1)
    events = []
    for number in range(600):
        admitted_ms = chance.choice((
            chance.randrange(FROM_MS, TO_MS),
            FROM_MS + HOUR_MS * chance.randrange(24 * 34) + chance.choice((0, -1, SPAN_MS, 2 * SPAN_MS)),
        ))  # fmt: skip
        events.append(
            usage_event(
                number,
                organisation=chance.choice(("o1", "o1", "o2")),
                workspace=chance.choice(("w1", "w2")),
                key_id=f"k{chance.randrange(3)}",
                tier=chance.choice(("a", "b")),
                cost_nano=chance.randrange(10**10),
                admitted_ms=admitted_ms,
                taken_ms=admitted_ms + 10,
                settled_ms=admitted_ms + chance.randrange(20, 5_000),
            )
        )
    store(database, events, TO_MS)
    return rows_of(database, UsageRecord, UsageRecord.request_id)


def of_query(records, query):
    return [
        record
        for record in records
        if record["organisation"] == query.organisation
        and query.from_ms <= record["admitted_ms"] < query.to_ms
        and query.workspace in (None, record["workspace"])
        and query.key_id in (None, record["key_id"])
        and (query.workspaces is None or record["workspace"] in query.workspaces)
    ]


def lines_of(database, query, count=10_000, after=None):
    check_query(query)
    with database.reading() as session:
        return report(session, query, after=after, count=count)


def totals(lines):
    return tuple(sum(getattr(line, name) for line in lines) for name in ("requests", *NAMES))


QUERY = UsageQuery(organisation="o1", from_ms=FROM_MS, to_ms=TO_MS, dimensions=ALL)


@pytest.mark.parametrize("seen", [frozenset(), frozenset({"w2"}), frozenset({"w1", "w2"})])
def test_whoever_sees_some_workspaces_is_told_their_sums(database, records, seen):
    query = replace(QUERY, workspaces=seen)
    mine = of_query(records, query)
    assert totals(lines_of(database, query)) == (len(mine), *sum_of(mine, *NAMES))
    with database.reading() as session:
        month = replace(query, to_ms=FROM_MS + 30 * DAY_MS)
        assert (latencies(session, month).total_ms[0.5] is None) == (not seen)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("period", [Period.DAY, Period.MONTH])
def test_days_and_months_of_any_zone_are_those_of_the_records(database, records, zone, period):
    query = replace(QUERY, period=period, time_zone=zone)
    mine = of_query(records, query)
    lines = lines_of(database, query)
    assert totals(lines) == (len(mine), *sum_of(mine, *NAMES))
    form = "%Y-%m-%d" if period is Period.DAY else "%Y-%m"

    def name(at_ms):
        return datetime.fromtimestamp(at_ms // 1000, UTC).astimezone(ZoneInfo(zone)).strftime(form)

    expected = {}
    for record in mine:
        key = (name(record["admitted_ms"]), record["workspace"], record["key_id"], record["tier"])
        expected.setdefault(key, []).append(record)
    found = {(name(line.start_ms), line.workspace, line.key_id, line.tier): line for line in lines}
    assert len(found) == len(lines)
    assert {key: totals([line]) for key, line in found.items()} == {
        key: (len(group), *sum_of(group, *NAMES)) for key, group in expected.items()
    }
    windows = (days if period is Period.DAY else months)(zone, FROM_MS, TO_MS)
    bounds = {(max(each.start_ms, FROM_MS), min(each.end_ms, TO_MS)) for each in windows}
    assert {(line.start_ms, line.end_ms) for line in lines} <= bounds


@pytest.mark.parametrize("zone", ZONES)
def test_hours_of_any_zone_hold_their_records_and_do_not_overlap(database, records, zone):
    middle_ms = (FROM_MS + TO_MS) // 2 // SPAN_MS * SPAN_MS
    for from_ms, to_ms in ((FROM_MS, FROM_MS + 5 * DAY_MS), (middle_ms, TO_MS)):
        query = replace(QUERY, from_ms=from_ms, to_ms=to_ms, period=Period.HOUR, dimensions=(), time_zone=zone)
        mine = of_query(records, query)
        lines = lines_of(database, query)
        assert totals(lines) == (len(mine), *sum_of(mine, *NAMES))
        for line in lines:
            inside = [record for record in mine if line.start_ms <= record["admitted_ms"] < line.end_ms]
            assert totals([line]) == (len(inside), *sum_of(inside, *NAMES))
        assert all(first.end_ms <= second.start_ms for first, second in pairwise(lines))


@pytest.mark.parametrize("narrowed", [{}, {"workspace": "w1"}, {"workspace": "w2", "key_id": "k1"}, {"key_id": "k9"}])
@pytest.mark.parametrize("dimensions", [(), (Dimension.TIER,), (Dimension.KEY, Dimension.TIER), ALL])
def test_groups_sum_to_what_was_asked_for(database, records, narrowed, dimensions):
    query = replace(QUERY, dimensions=dimensions, **narrowed)
    mine = of_query(records, query)
    lines = lines_of(database, query)
    assert totals(lines) == (len(mine), *sum_of(mine, *NAMES))
    keys = {tuple(record[_column(dimension)] for dimension in dimensions) for record in mine}
    assert len(lines) == len(keys)
    for line in lines:
        shown = {Dimension.WORKSPACE: line.workspace, Dimension.KEY: line.key_id, Dimension.TIER: line.tier}
        assert {name for name, value in shown.items() if value is not None} == set(dimensions)


def _column(dimension):
    return "key_id" if dimension is Dimension.KEY else dimension.value


@pytest.mark.parametrize("size", [3, 100])
def test_pages_are_the_whole_in_order(database, records, size):
    query = replace(QUERY, period=Period.DAY, dimensions=(Dimension.TIER, Dimension.KEY), time_zone="Asia/Kolkata")
    whole = lines_of(database, query)
    pages, after = [], None
    while page := lines_of(database, query, size, after):
        assert len(page) <= size
        pages += page
        after = group_key(page[-1])
    assert pages == whole
    assert len(whole) > 100


def test_files_hold_every_line_and_request_with_exact_money(database, records, monkeypatch):
    monkeypatch.setattr("billing.export.LINES_AT_ONCE", 37)
    query = replace(QUERY, period=Period.DAY, workspace="w1", time_zone="Europe/Rome")
    mine = of_query(records, query)
    lines = lines_of(database, query)
    text = csv_page((), LINE_FIELDS, header=True)
    text += b"".join(csv_page(page, LINE_FIELDS, header=False) for page in line_pages(database, query))
    rows = list(csv.DictReader(io.StringIO(text.decode(), newline="")))
    expected = [shown_line(line, "Europe/Rome") for line in lines]
    assert rows == [{name: str(line[name]) for name in LINE_FIELDS} for line in expected]
    text = b"".join(jsonl_page(page) for page in record_pages(database, query))
    rows = [json.loads(row) for row in text.splitlines()]
    assert [row["request_id"] for row in rows] == [
        record["request_id"] for record in sorted(mine, key=lambda row: (row["admitted_ms"], row["request_id"]))
    ]
    assert sum_of(rows, *NAMES) == sum_of(mine, *NAMES)
    assert tuple(rows[0]) == RECORD_FIELDS
    whole, _, places = rows[0]["cost"].partition(".")
    assert int(whole) * 10**9 + int(places.ljust(9, "0")) == rows[0]["cost_nano"]


def test_latencies_are_those_of_the_requests(database, records):
    query = replace(QUERY, from_ms=TO_MS - 20 * DAY_MS, key_id="k1")
    mine = sorted(record["settled_ms"] - record["admitted_ms"] for record in of_query(records, query))
    with database.reading() as session:
        found = latencies(session, query, (0.5, 1.0))
        empty = latencies(session, replace(query, key_id="k9"))
    true = mine[(len(mine) + 1) // 2 - 1]
    assert true <= found.total_ms[0.5] <= true * 1.1
    assert mine[-1] <= found.total_ms[1.0] <= mine[-1] * 1.1
    assert found.first_token_ms[1.0] == 13
    assert set(empty.total_ms.values()) == {None}


@pytest.mark.parametrize(
    "wrong",
    [
        {"to_ms": FROM_MS},
        {"from_ms": FROM_MS + 1},
        {"period": Period.HOUR},
        {"to_ms": FROM_MS + 367 * DAY_MS, "period": Period.DAY},
        {"to_ms": FROM_MS + 2_000 * DAY_MS},
        {"time_zone": "Europe/Atlantis"},
    ],
)
def test_what_is_not_bounded_is_refused(wrong):
    with pytest.raises(PlatformError):
        check_query(replace(QUERY, **wrong))
