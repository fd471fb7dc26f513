"""S6: what a usage page costs over many usage records.

    make bench-usage                              a million records, in a SQLite file that is deleted afterwards
    make bench-usage ARGS="--records 10000000"    the promise's size, about 12 minutes and 5 GB

Half of all records belong to one organisation, which asks. Each question is asked over one month, ROUNDS times; the
slowest counts.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from billing.briefs import add_to_briefs
from billing.models import UsageHour, UsageRecord, UsageSpan
from billing.rollups import COLUMNS, HOUR_COLUMNS, HOUR_MS, Counted, Span, SpanKey, hours_of, spans_of
from billing.usage import DAY_MS, Dimension, Period, UsageQuery, report
from core.db import Database, connect_database
from migrations.run import migrate

START_MS = 1_767_225_600_000  # 2026-01-01
DAYS = 30
ORGANISATIONS, KEYS, TIERS = 10, 20, 4
AT_ONCE = 10_000
ROUNDS = 5
TARGET_MS = 200
BIGGEST = "organisation-0"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--database", help="URL of an empty database; default: a SQLite file that is deleted")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tramontane-bench-") as folder:
        url = chosen.database or f"sqlite:///{Path(folder) / 'usage.sqlite3'}"
        migrate(url)
        database = connect_database(url)
        hours = seed(database, chosen.records)
        print(f"{chosen.records:,} records, {hours:,} hourly roll-ups, {DAYS} days, {url.split(':')[0]}")
        slowest_ms = max(measure(database, name, query) for name, query in questions())
        database.close()
    print(f"slowest {slowest_ms:.0f} ms, the promise is {TARGET_MS} ms")
    return 0 if slowest_ms <= TARGET_MS else 1


def questions() -> Iterator[tuple[str, UsageQuery]]:
    """As the page of a key, of a workspace and of an organisation asks them."""
    month = UsageQuery(BIGGEST, START_MS, START_MS + DAYS * DAY_MS, period=Period.DAY, time_zone="Europe/Paris")
    key = f"{BIGGEST}-key-0"
    yield "key, by day", replace(month, key_id=key)
    yield "key, by day and tier", replace(month, key_id=key, dimensions=(Dimension.TIER,))
    yield "key, by hour", replace(month, key_id=key, period=Period.HOUR)
    yield "workspace, by day and tier", replace(month, workspace=f"{BIGGEST}-0", dimensions=(Dimension.TIER,))
    yield "workspace, by key", replace(month, workspace=f"{BIGGEST}-0", period=None, dimensions=(Dimension.KEY,))
    yield "organisation, by month", replace(month, period=Period.MONTH)
    yield "organisation, by day", month
    yield "organisation, by day in India", replace(month, time_zone="Asia/Kolkata")


def measure(database: Database, name: str, query: UsageQuery) -> float:
    def ask() -> int:
        with database.reading() as session:
            return len(report(session, query, count=1_000))

    began_s = time.process_time()
    taken_ms = [timed_ms(ask) for _ in range(ROUNDS)]
    cpu_ms = (time.process_time() - began_s) * 1_000 / ROUNDS  # beside the rest: tells a busy machine from a slow query
    times = f"median {statistics.median(taken_ms):6.1f} ms, slowest {max(taken_ms):6.1f} ms, {cpu_ms:6.1f} ms of CPU"
    print(f"  {name:30} {times}, {ask()} lines")
    return max(taken_ms)


def timed_ms(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return (time.perf_counter() - began_s) * 1_000


def seed(database: Database, count: int) -> int:
    """Records in the order of time, without a ledger; their roll-ups by the same code as ever. How many hourly ones."""
    chance = random.Random(1)
    roll_ups = 0
    for hour in range(DAYS * 24):
        until = count * (hour + 1) // (DAYS * 24)
        numbers = range(count * hour // (DAYS * 24), until)
        spans: dict[SpanKey, Span] = {}
        for at in range(0, len(numbers), AT_ONCE):
            rows = [record(chance, number, hour) for number in numbers[at : at + AT_ONCE]]
            counted = [Counted(**{name: row[name] for name in Counted._fields}) for row in rows]
            with database.unit_of_work() as session:
                session.execute(insert(UsageRecord), rows)
                add_to_briefs(session, counted)
            for key, span in spans_of(counted).items():
                merge(spans.setdefault(key, Span()), span)
        with database.unit_of_work() as session:
            found = [dict(zip(COLUMNS, spans[key].row(key), strict=True)) for key in sorted(spans)]
            hours = [dict(zip(HOUR_COLUMNS, (*key, *sums), strict=True)) for key, sums in hours_of(spans).items()]
            if found:
                session.execute(insert(UsageSpan), found)
                session.execute(insert(UsageHour), hours)
        roll_ups += len(hours)
        print(f"\r  seeding {until:,}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return roll_ups


def merge(into: Span, span: Span) -> None:
    into.sums = [mine + theirs for mine, theirs in zip(into.sums, span.sums, strict=True)]
    into.first_token.update(span.first_token)
    into.total.update(span.total)


def record(chance: random.Random, number: int, hour: int) -> dict[str, Any]:
    organisation = BIGGEST if chance.random() < 0.5 else f"organisation-{chance.randrange(1, ORGANISATIONS)}"
    key = chance.randrange(KEYS)
    admitted_ms = START_MS + hour * HOUR_MS + chance.randrange(HOUR_MS)
    first_ms, whole_ms = chance.randrange(20, 900), chance.randrange(900, 20_000)
    return {
        "request_id": f"c0{number:030x}",
        "organisation": organisation,
        "workspace": f"{organisation}-{key % 2}",
        "key_id": f"{organisation}-key-{key}",
        "tier": f"tier-{chance.randrange(TIERS)}",
        "kind": "chat",
        "outcome": "finished",
        "attempt": 1,
        "streamed": True,
        "prompt_tokens": 200,
        "completion_tokens": 100,
        "cached_tokens": 0,
        "decoded_tokens": 100,
        "cost_nano": 70_000,
        "price_version": "bench",
        "admitted_ms": admitted_ms,
        "taken_ms": admitted_ms + 5,
        "first_token_ms": first_ms,
        "settled_ms": admitted_ms + whole_ms,
        "epoch": 1,
        "loss_nano": 0,
        "transaction_id": None,
    }


if __name__ == "__main__":
    sys.exit(main())
