"""How often a mixture's router chose each expert: what workers sample, on its way into SQL.

These are statistics, not accounts: of each cell the youngest ENTRIES_MAX samples wait to be collected, older ones are
dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgpack
from redis.asyncio import Redis

from core.clock import Clock
from core.meter.keys import cell_key

ENTRIES_MAX = 2_000
ENTRY_BYTES_MAX = 65_536
BEGINNING = "0-0"


@dataclass(frozen=True, slots=True)
class ExpertCounts:
    """`counts[i][e]`: how often expert e of layer `layers[i]` was chosen. Of each layer they add up to the tokens that
    the model computed times the experts that each token goes to.
    """

    layers: tuple[int, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class ExpertSample:
    """Of one choice of one request."""

    tier: str
    organisation: str
    workspace: str
    experts: ExpertCounts


class ExpertLog(Protocol):
    """Samples by an id that only grows: `MS-NUMBER`, of the moment when they came."""

    async def append(self, samples: Sequence[ExpertSample]) -> None:
        """One that is larger than ENTRY_BYTES_MAX is left out."""

    async def read(self, after: str, count: int) -> list[tuple[str, ExpertSample]]:
        """The oldest that came after that id, in order."""

    async def forget(self, up_to: str) -> None:
        """Those up to that id, itself included."""

    async def close(self) -> None: ...


def entry_place(entry_id: str) -> tuple[int, int]:
    """An id as numbers: ms, and the place within it."""
    at_ms, _, number = entry_id.partition("-")
    return int(at_ms), int(number)


class MemoryExpertLog:
    """For one process: tests, and embedding a worker."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: list[tuple[str, bytes]] = []
        self._last = (0, 0)

    async def append(self, samples: Sequence[ExpertSample]) -> None:
        for packed in _packed(samples):
            self._last = max((self._clock.now_ms(), 0), (self._last[0], self._last[1] + 1))
            self._kept.append(("{}-{}".format(*self._last), packed))
        del self._kept[:-ENTRIES_MAX]

    async def read(self, after: str, count: int) -> list[tuple[str, ExpertSample]]:
        later = [entry for entry in self._kept if entry_place(entry[0]) > entry_place(after)]
        return [(entry_id, _unpacked(packed)) for entry_id, packed in later[:count]]

    async def forget(self, up_to: str) -> None:
        self._kept = [entry for entry in self._kept if entry_place(entry[0]) > entry_place(up_to)]

    async def close(self) -> None: ...


class RedisExpertLog:
    """The stream `:experts` of the cell. `client` becomes this log's own."""

    def __init__(self, client: Redis, cell: str) -> None:
        self._client = client
        self._key = f"{cell_key(cell)}:experts"

    async def append(self, samples: Sequence[ExpertSample]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for packed in _packed(samples):
            pipeline.xadd(self._key, {b"e": packed}, maxlen=ENTRIES_MAX, approximate=True)
        await pipeline.execute()

    async def read(self, after: str, count: int) -> list[tuple[str, ExpertSample]]:
        entries: Any = await self._client.xrange(self._key, min=f"({after}", count=count)
        return [(entry_id.decode(), _unpacked(raw[b"e"])) for entry_id, raw in entries]

    async def forget(self, up_to: str) -> None:
        """XTRIM keeps the id itself."""
        at_ms, number = entry_place(up_to)
        await self._client.xtrim(self._key, minid=f"{at_ms}-{number + 1}", approximate=False)

    async def close(self) -> None:
        await self._client.aclose()


def _packed(samples: Sequence[ExpertSample]) -> list[bytes]:
    out = []
    for sample in samples:
        experts = sample.experts
        value = (sample.tier, sample.organisation, sample.workspace, experts.layers, experts.counts)
        packed = msgpack.packb(value)
        if len(packed) <= ENTRY_BYTES_MAX:
            out.append(packed)
    return out


def _unpacked(packed: bytes) -> ExpertSample:
    """A later release may append fields."""
    tier, organisation, workspace, layers, counts, *_ = msgpack.unpackb(packed, use_list=False)
    return ExpertSample(tier, organisation, workspace, ExpertCounts(layers, counts))
