"""What people who open pages do to the requests of programs, on one whole platform with the echo engine.

    make bench-console-lag                            8 browsers, a page each second
    make bench-console-lag ARGS="--pause-s 0"         as fast as pages come

Rounds with and without browsers alternate; a request that is refused ends the run with an error.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlalchemy import select

from benchmarks.console.chats import OPERATOR_EMAIL, OPERATOR_ID
from benchmarks.console.seed import CONFIG, seed
from core.catalog import read_catalog
from core.clock import SystemClock
from core.db import connect_database
from core.ids import SystemIds
from gateway.accounts.organisations import DEFAULT_NAME
from gateway.accounts.people import Member, User
from gateway.accounts.sessions import Origin, open_session
from gateway.console.desk import SESSION_COOKIE
from migrations.run import migrate

LOAD = Path(__file__).parents[1] / "gateway" / "load.py"
COMMAND = Path(sys.executable).parent / "tramontane"
PAGES = (
    "/console/o/{organisation}",
    "/console/o/{organisation}/usage?range=12m",
    "/console/o/{organisation}/requests",
    "/console/o/{organisation}/billing",
    "/console/o/{organisation}/audit",
    "/console/operator/revenue?period=year",
    "/console/operator/experts?period=30d",
    "/console/operator/pools",
)
TIER = "mistral-tiny"
PAGE_S_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Platform:
    url: str
    key: str
    session: str
    organisation: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--browsers", type=int, default=8)
    parser.add_argument("--pause-s", type=float, default=1.0, help="between two pages of one browser")
    parser.add_argument("--callers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    chosen = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="tramontane-bench-") as folder,
        platform(Path(folder), chosen.records) as up,
    ):
        load(up, chosen.callers, 2)  # warm up
        alone, beside, pages = [], [], 0
        for _ in range(chosen.rounds):
            alone.append(load(up, chosen.callers, chosen.seconds))
            figures, opened = asyncio.run(with_browsers(up, chosen))
            beside.append(figures)
            pages += opened
    for name in ("p50_ms", "p99_ms", "requests_per_s"):
        one, other = (statistics.median(figures[name] for figures in each) for each in (alone, beside))
        print(f"{name:15} alone {one:9.2f}  beside browsers {other:9.2f}  ratio {other / one:5.2f}")
    print(f"{chosen.browsers} browsers opened {pages} pages; nothing was refused")
    return 0


@contextmanager
def platform(home: Path, records: int) -> Iterator[Platform]:
    """A seeded installation, started; with a key of the default organisation and the operator's session."""
    url = f"sqlite:///{home / 'tramontane.sqlite3'}"
    migrate(url)
    database = connect_database(url, migrating=True)
    seed(database, read_catalog(CONFIG), records)
    clock = SystemClock()
    with database.unit_of_work() as session:
        user = session.scalars(select(User).where(User.email == OPERATOR_EMAIL)).one()
        opened = open_session(session, user, Origin("127.0.0.1", "a benchmark", ""), clock=clock, ids=SystemIds(clock))
        organisation = session.scalars(select(Member.organisation_id).where(Member.user_id == OPERATOR_ID)).one()
    database.close()
    environment = {**os.environ, "TRAMONTANE_HOME": str(home)}

    def run(*arguments: str) -> str:
        done = subprocess.run([COMMAND, *arguments], env=environment, check=True, capture_output=True, text=True)
        return done.stdout

    run("up", "--detach", "--port", "0", "--engine", "echo", "--tiers", TIER)
    try:
        made = run(
            "keys", "create", "--org", DEFAULT_NAME, "--workspace", DEFAULT_NAME, "--name", "benchmark", "--json"
        )
        base_url = json.loads(run("status", "--json"))["base_url"]
        yield Platform(base_url, json.loads(made)["key"], opened.token.get_secret_value(), organisation)
    finally:
        run("down")


def load_command(up: Platform, callers: int, seconds: float) -> list[str]:
    url = f"{up.url}/v1/chat/completions"
    named = ["--key", up.key, "--model", TIER, "--callers", str(callers), "--seconds", str(seconds)]
    return [sys.executable, str(LOAD), url, *named]


def load(up: Platform, callers: int, seconds: float) -> dict[str, float]:
    done = subprocess.run(load_command(up, callers, seconds), check=True, capture_output=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


async def with_browsers(up: Platform, chosen: argparse.Namespace) -> tuple[dict[str, float], int]:
    """What the load measured, and how many pages were opened meanwhile."""
    until_s = time.monotonic() + chosen.seconds
    command = load_command(up, chosen.callers, chosen.seconds)
    loading = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    browsers = [browse(up, number, chosen.pause_s, until_s) for number in range(chosen.browsers)]
    opened = await asyncio.gather(*browsers)
    told, _ = await loading.communicate()
    if loading.returncode:
        raise RuntimeError("a request was refused while pages were opened")
    return json.loads(told), sum(opened)


async def browse(up: Platform, number: int, pause_s: float, until_s: float) -> int:
    """Each begins with another page."""
    opened = 0
    async with httpx.AsyncClient(base_url=up.url, timeout=PAGE_S_MAX, cookies={SESSION_COOKIE: up.session}) as client:
        for path in itertools.islice(itertools.cycle(PAGES), number, None):
            if time.monotonic() >= until_s:
                return opened
            answer = await client.get(path.format(organisation=up.organisation))
            answer.raise_for_status()
            opened += 1
            await asyncio.sleep(pause_s)
    return opened


if __name__ == "__main__":
    sys.exit(main())
