"""M5: the books. Random histories of credit against a model, on both databases; and after a load, roll-ups that say in
any time zone what the records say.
"""

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis.stateful import invariant
from sqlalchemy.engine import make_url

from migrations.run import migrate
from tests.contracts.database.test_credit_machine import CreditMachine, fresh_sqlite, play
from tests.databases import BACKENDS, new_postgres_database, sqlite_url
from tests.promises.callers import CHAT, ask_many, body, chat
from tests.promises.platform import FAULTY

__all__ = ["sqlite_url"]

AT_ONCE = 20  # histories
OPERATIONS = {"sqlite": (300, 100_000), "postgres": (100, 10_000)}  # small, full
ZONES = ("UTC", "Asia/Kolkata", "America/St_Johns", "Pacific/Kiritimati", "Europe/Rome")


class CountedMachine(CreditMachine):
    def __init__(self, url, done):
        super().__init__(url)
        self._done = done

    @invariant()
    def one_more(self):
        self._done["operations"] += 1


def histories(template, folder, operations):
    """Until so many operations are done; how many, and in how many histories. `template`: a file, or the URL of a
    database on Postgres.
    """
    done = Counter()
    numbers = itertools.count()
    folder = Path(folder)
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        last = stack.enter_context(contextlib.ExitStack())

        def machine():
            done["histories"] += 1
            if not template.startswith("postgresql"):
                return CountedMachine(fresh_sqlite(template, folder), done)
            last.close()
            server = make_url(template)
            name = f"history_{os.getpid()}_{next(numbers)}"
            return CountedMachine(last.enter_context(new_postgres_database(server, name, server.database)), done)

        while done["operations"] < operations:
            play(machine, AT_ONCE if operations > 1_000 else 3)
    return done


@pytest.fixture(params=BACKENDS)
def template(request):
    url = request.getfixturevalue(f"{request.param}_url")
    migrate(url)
    return request.param, url.removeprefix("sqlite:///")


def test_any_history_of_credit_keeps_the_books(template, full, figures, tmp_path):
    backend, source = template
    operations = OPERATIONS[backend][full]
    cores = os.cpu_count() if full else 1
    if full:
        with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
            parts = [
                pool.submit(histories, source, str(tmp_path / str(core)), -(-operations // cores))
                for core in range(cores)
            ]
            done = sum((part.result() for part in parts), Counter())
    else:
        done = histories(source, str(tmp_path / "one"), operations)
    assert done["operations"] >= operations
    figures[f"M5 random operations, {backend}"] = {**done, "books wrong": 0}


def test_after_a_load_rollups_say_what_the_records_say(platform, full, figures):
    count = 2_000 if full else 60
    owner = platform.tenant("books", "100")
    other = platform.key(owner.id)

    async def run():
        async with platform.client(owner) as one, platform.client(other) as two:
            for _ in range(count // 60):
                await ask_many(one, 20)
                await ask_many(two, 20, model=FAULTY)
                failing = chat("[[echo:fail=2]]", FAULTY)
                failed = await asyncio.gather(*(two.post(CHAT, json=failing) for _ in range(20)))
                assert {answer.status_code for answer in failed} == {500}
                assert (await two.post(CHAT, json=body(model="nobody"))).status_code == 400
            records = (await asyncio.to_thread(platform.records, owner)).values()
            for zone in ZONES:
                for period in ("hour", "day", "month"):
                    asked = {"scope": "workspace", "group_by": f"{period},key,tier", "time_zone": zone}
                    if period == "month":  # all of the present one
                        asked["from"] = str(int(time.time()) - 40 * 86_400)
                    report = (await one.get("/v1/usage", params=asked)).json()
                    assert lines_of(report) == expected(records, period, zone)
            return len(records)

    requests = asyncio.run(run())
    platform.check_books()
    figures[f"M5 roll-ups, {platform.backend}"] = {"requests": requests, "time zones": len(ZONES), "different": 0}


def lines_of(report):
    return {
        (line["start"], line["key"], line["tier"]): (
            line["requests"],
            line["failed_requests"],
            line["total_tokens"],
            line["cost_nano"],
        )
        for line in report["data"]
    }


def expected(records, period, zone):
    """Sums over records by the calendar of the zone."""
    sums = {}
    for row in records:
        moment = datetime.fromtimestamp(row.admitted_ms / 1_000, UTC).astimezone(ZoneInfo(zone))
        start = moment.replace(minute=0, second=0, microsecond=0)
        if period != "hour":
            start = start.replace(hour=0, day=1 if period == "month" else start.day)
        key = (start.isoformat(), row.key_id, row.tier)
        values = (1, row.outcome == "failed", row.prompt_tokens + row.completion_tokens, row.cost_nano)
        sums[key] = tuple(map(sum, zip(sums.get(key, (0, 0, 0, 0)), values, strict=True)))
    return sums
