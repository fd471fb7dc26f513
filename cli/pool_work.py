"""What `tramontane pools` does. Each act is in the audit log; one that fails is not."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict

from rich.table import Table

from cli.accounts.acting import Hands, hands, moment, print_json
from cli.installation import Installation, catalog_of, redis_of
from cli.terminal import tables
from core.errors import SetupError
from core.pools import LETTERS_READ_MAX, DeadLetter, PoolOverview
from core.pools_redis import RedisPools
from core.queue.settings import queue_settings
from gateway.accounts.trail import Target, record

LETTER = re.compile(r"\d{1,20}-\d{1,20}")
MS_PER_S = 1_000


@asynccontextmanager
async def pools_of(installation: Installation) -> AsyncIterator[RedisPools]:
    settings = installation.settings
    async with redis_of(installation) as client:
        pools = RedisPools(client, queue_settings(catalog_of(installation), settings.cell, settings.lease_ms))
        try:
            yield pools
        finally:
            await pools.close()


def show(*, as_json: bool) -> None:
    installation = hands().installation
    overview = asyncio.run(_overview(installation))
    if as_json:
        print_json(asdict(overview))
        return
    table = Table("tier", "worker", "slots", "held", "lease", "waiting", "oldest", "", box=None)
    for line in overview.tiers.values():
        waits = (str(line.queued), _seconds(line.oldest_wait_ms), "drained" if line.drained else "")
        table.add_row(line.tier, "", str(sum(w.slots for w in line.workers)), str(line.running), "", *waits)
        for worker in line.workers:
            drained = "drained" if worker.drained else ""
            lease = _seconds(worker.lease_left_ms)
            table.add_row("", worker.worker_id, str(worker.slots), str(worker.held), lease, "", "", drained)
    tables().print(table)
    if overview.dead_letters:
        sys.stdout.write(f"Dead letters: {overview.dead_letters}\n")


def drain(tier: str, worker: str, *, as_json: bool) -> None:
    _set(tier, worker, "drain", lambda pools: pools.drain(tier, worker), as_json=as_json)


def resume(tier: str, worker: str, *, as_json: bool) -> None:
    _set(tier, worker, "resume", lambda pools: pools.resume(tier, worker), as_json=as_json)


def letters(*, as_json: bool) -> None:
    found = asyncio.run(_letters(hands().installation))
    if as_json:
        print_json({"letters": [asdict(letter) for letter in found]})
        return
    table = Table("letter", "at", "request", "tier", "organisation", "workspace", "", box=None)
    for letter in found:
        kept = "" if letter.runnable else "its job was not kept"
        place = (letter.tier, letter.organisation, letter.workspace)
        table.add_row(letter.letter_id, moment(letter.lost_ms), letter.request_id, *place, kept)
    tables().print(table)


def requeue(letter_id: str, *, as_json: bool) -> None:
    did = hands()
    request_id = did.ids.request_id(did.installation.settings.cell)
    _act(did, "requeue", _checked(letter_id), lambda pools: pools.requeue(letter_id, request_id))
    _tell({"id": letter_id, "request_id": request_id}, f"It runs again as {request_id}.", as_json=as_json)


def drop(letter_id: str, *, as_json: bool) -> None:
    _act(hands(), "drop", _checked(letter_id), lambda pools: pools.drop(letter_id))
    _tell({"id": letter_id}, f"The letter {letter_id} is gone.", as_json=as_json)


def _set(tier: str, worker: str, verb: str, ask: Callable[[RedisPools], Awaitable[bool]], *, as_json: bool) -> None:
    did = hands()
    if catalog_of(did.installation).tier(tier) is None:
        raise SetupError(f"There is no tier {tier}.")
    _act(did, verb, Target("pool", f"{tier}/{worker}" if worker else tier), ask)
    name = f"{worker} of {tier}" if worker else tier
    said = "takes nothing more." if verb == "drain" else "takes work again."
    _tell({"tier": tier, "worker": worker}, f"{name} {said}", as_json=as_json)


def _act(did: Hands, verb: str, target: Target, ask: Callable[[RedisPools], Awaitable[bool]]) -> None:
    """Noted and done, or neither."""
    with did.changing() as session:
        record(session, did.actor, f"{target.kind}.{verb}", target, organisation="", now_ms=did.clock.now_ms())
        if not asyncio.run(_asked(did.installation, ask)):
            raise SetupError(f"There is no {target.kind} {target.id} of which that can be done.")


def _checked(letter_id: str) -> Target:
    if not LETTER.fullmatch(letter_id):
        raise SetupError(f"{letter_id} is no letter; `tramontane pools letters` lists them.")
    return Target("dead_letter", letter_id)


def _tell(value: object, said: str, *, as_json: bool) -> None:
    if as_json:
        print_json(value)
    else:
        sys.stdout.write(said + "\n")


async def _asked(installation: Installation, ask: Callable[[RedisPools], Awaitable[bool]]) -> bool:
    async with pools_of(installation) as pools:
        return await ask(pools)


async def _overview(installation: Installation) -> PoolOverview:
    async with pools_of(installation) as pools:
        return await pools.overview([tier.name for tier in catalog_of(installation).tiers])


async def _letters(installation: Installation) -> list[DeadLetter]:
    async with pools_of(installation) as pools:
        return await pools.dead_letters(LETTERS_READ_MAX)


def _seconds(ms: int) -> str:
    return f"{ms / MS_PER_S:.1f} s"
