"""`tramontane status`: what runs, what waits, what is in work."""

import asyncio
import json
import sys
from dataclasses import asdict, dataclass

from rich.table import Table

from cli.health import is_ready, ready_url
from cli.installation import Installation, catalog_of, find_installation, keeper_of
from cli.private_redis import NAME as REDIS
from cli.private_redis import answers
from cli.state import alive
from cli.terminal import tables
from core.heartbeat import read_beat


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    name: str
    pid: int
    healthy: bool


@dataclass(frozen=True, slots=True)
class TierStatus:
    queued: int
    running: int
    workers: int


@dataclass(frozen=True, slots=True)
class Status:
    """`usage_lag`: settled requests that are not yet in SQL. `base_url` is empty if nothing runs on this home."""

    ready: bool
    base_url: str
    processes: tuple[ProcessStatus, ...]
    tiers: dict[str, TierStatus]
    reservations_open: int
    usage_lag: int


def status(*, as_json: bool) -> int:
    """Print it. Exit code 0 if a platform runs, ready or not, else 1."""
    installation = find_installation()
    found = asyncio.run(gather(installation))
    if as_json:
        sys.stdout.write(json.dumps(asdict(found), indent=2) + "\n")
    else:
        _show(found)
    return 0 if installation.redis_url is not None else 1


async def gather(installation: Installation) -> Status:
    """Where processes run apart (no `up` here, but a Redis is named), only what Redis knows."""
    if installation.redis_url is None:
        return Status(ready=False, base_url="", processes=(), tiers={}, reservations_open=0, usage_lag=0)
    names = [tier.name for tier in catalog_of(installation).tiers]
    async with keeper_of(installation) as keeper:
        stats = await keeper.stats(names)
    tiers = {name: TierStatus(one.queued, one.running, one.workers) for name, one in stats.tiers.items()}
    processes = await _processes(installation, installation.redis_url)
    base_url = "" if installation.state is None else installation.state.base_url
    ready = all(process.healthy for process in processes) and all(one.workers > 0 for one in tiers.values())
    if base_url:
        ready = ready and await asyncio.to_thread(is_ready, ready_url(base_url))
    return Status(ready, base_url, processes, tiers, stats.reservations_open, stats.usage_backlog)


async def _processes(installation: Installation, redis_url: str) -> tuple[ProcessStatus, ...]:
    if installation.state is None:
        return ()
    out = []
    for process in installation.state.processes:
        if process.name == REDIS:
            healthy = await answers(redis_url)
        else:
            beat = read_beat(installation.home.beat(process.name))
            healthy = beat is not None and beat.ready
        out.append(ProcessStatus(process.name, process.pid, healthy and alive(process)))
    return tuple(out)


def _show(found: Status) -> None:
    console = tables()
    if not found.tiers:
        console.print("Nothing runs here.")
        return
    console.print(f"{'Ready' if found.ready else 'Not ready'} {found.base_url}")
    processes = Table("process", "pid", "healthy", box=None)
    for process in found.processes:
        processes.add_row(process.name, str(process.pid), "yes" if process.healthy else "no")
    tiers = Table("tier", "queued", "running", "workers", box=None)
    for name, tier in found.tiers.items():
        tiers.add_row(name, str(tier.queued), str(tier.running), str(tier.workers))
    if found.processes:
        console.print(processes)
    console.print(tiers)
    console.print(f"{found.reservations_open} reservations open, {found.usage_lag} usage events not yet in SQL")
