"""A cell's money as it stands in Redis at one moment, for comparing with SQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from core.meter.keys import cell_key
from core.meter.usage import UsageEvent
from core.meter.usage_redis import usage_event

EVENTS_MAX = 20_000


@dataclass(frozen=True, slots=True)
class CellBooks:
    """`credit_nano` by organisation: free and reserved, of the epoch `epoch`. `uncollected` are the usage events that
    SQL may not have yet; None if there are more than EVENTS_MAX.
    """

    epoch: int
    credit_nano: dict[str, int]
    uncollected: tuple[UsageEvent, ...] | None


async def read_cell(client: Redis, cell: str, organisations: Sequence[str]) -> CellBooks:
    """All in one step of Redis: nothing is settled or lent between its parts."""
    key = cell_key(cell)
    pipeline = client.pipeline(transaction=True)
    pipeline.hget(f"{key}:epoch", "number")
    pipeline.xrange(f"{key}:usage", count=EVENTS_MAX + 1)
    for organisation in organisations:
        pipeline.hmget(f"{key}:o:{organisation}", "ep", "credit", "resv")
    number, entries, *wallets = await pipeline.execute()
    epoch = int(number or 0)
    credit = {
        organisation: _of_epoch(wallet, epoch) for organisation, wallet in zip(organisations, wallets, strict=True)
    }
    uncollected = None if len(entries) > EVENTS_MAX else tuple(usage_event(raw) for _, raw in entries)
    return CellBooks(epoch, credit, uncollected)


def _of_epoch(wallet: list[Any], epoch: int) -> int:
    """Credit of another epoch counts as nothing, as in the scripts."""
    of_epoch, free, reserved = (int(value or 0) for value in wallet)
    return free + reserved if of_epoch == epoch else 0
