"""Refusals, kept for a day so that anyone can later ask why: what was refused, by which rule, with which numbers.

They are advice, not accounts: each organisation keeps its youngest REFUSALS_MAX, and those beyond REFUSALS_PER_S are
counted instead of written (see gateway/refusal_buffer.py).
"""

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, Protocol

import msgpack
from redis.asyncio import Redis

from core.clock import Clock
from core.meter.keys import cell_key

KEPT_MS = 86_400_000
REFUSALS_MAX = 5_000
READ_MAX = 1_000
TALLY_MS = 600_000  # one count for each reason and so long


@dataclass(frozen=True, slots=True)
class RefusalEvent:
    """One refused request. `organisation` is empty when nobody knows who called; `rule` and what follows are empty
    where no rule refused, but the request itself was wrong. `left_out`: so many more of the organisation's refusals
    in the same second were only counted. `retry_after_s` None: waiting does not help, or nobody knows how long.
    """

    request_id: str
    organisation: str
    workspace: str
    key_id: str
    route: str
    tier: str
    status: int
    code: str
    rule: str
    scope: str
    limit: int
    remaining: int
    at_ms: int
    left_out: int = 0
    retry_after_s: int | None = None


FIELDS = len(fields(RefusalEvent))
SEPARATOR = "|"  # in no tier's name


Reason = tuple[str, str]  # tier and rule, or no tier and the code where no rule refused


class RefusalLog(Protocol):
    async def append(self, events: Sequence[RefusalEvent]) -> None: ...

    async def tally(self, since_ms: int) -> dict[Reason, int]:
        """How many requests of all organisations were refused, by reason, in the TALLY_MS that hold since_ms and in
        those after it; of the last day at most. Those that were left out count, too.
        """

    async def read(self, organisation: str, since_ms: int, count: int) -> list[RefusalEvent]:
        """The youngest that were written at or after since_ms, youngest first; at most `count` and READ_MAX."""


class MemoryRefusalLog:
    """For one process: tests, and embedding the gateway."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, deque[tuple[int, RefusalEvent]]] = defaultdict(lambda: deque(maxlen=REFUSALS_MAX))
        self._tallies: dict[int, Counter[Reason]] = {}

    async def append(self, events: Sequence[RefusalEvent]) -> None:
        now_ms = self._clock.now_ms()
        for event in events:
            self._kept[event.organisation].append((now_ms, event))
        self._tallies.setdefault(now_ms // TALLY_MS, Counter()).update(_tallied(events))
        for number in [number for number in self._tallies if number < (now_ms - KEPT_MS) // TALLY_MS]:
            del self._tallies[number]

    async def tally(self, since_ms: int) -> dict[Reason, int]:
        sums: Counter[Reason] = Counter()
        for number in _tallies(since_ms, self._clock.now_ms()):
            sums.update(self._tallies.get(number, {}))
        return dict(sums)

    async def read(self, organisation: str, since_ms: int, count: int) -> list[RefusalEvent]:
        since_ms = max(since_ms, self._clock.now_ms() - KEPT_MS)
        kept = self._kept.get(organisation, ())
        return [event for at_ms, event in reversed(kept) if at_ms >= since_ms][: min(count, READ_MAX)]


class RedisRefusalLog:
    """A stream for each organisation, `:refusals:ORG` in the cell: no other's flood pushes its entries out. Of all
    together only counts, `:refused:NUMBER` for each TALLY_MS.
    """

    def __init__(self, client: Redis, cell: str, clock: Clock) -> None:
        self._client = client
        self._prefix = f"{cell_key(cell)}:refusals:"
        self._tally = f"{cell_key(cell)}:refused:"
        self._clock = clock

    async def append(self, events: Sequence[RefusalEvent]) -> None:
        if not events:
            return
        now_ms = self._clock.now_ms()
        oldest_ms = now_ms - KEPT_MS
        pipeline = self._client.pipeline(transaction=False)
        for event in events:
            packed = msgpack.packb(astuple(event))
            pipeline.xadd(self._key(event.organisation), {b"r": packed}, maxlen=REFUSALS_MAX, approximate=True)
        for organisation in sorted({event.organisation for event in events}):
            pipeline.xtrim(self._key(organisation), minid=str(oldest_ms), approximate=True)
            pipeline.pexpire(self._key(organisation), KEPT_MS)
        tally = f"{self._tally}{now_ms // TALLY_MS}"
        for (tier, rule), count in _tallied(events).items():
            pipeline.hincrby(tally, f"{tier}{SEPARATOR}{rule}", count)
        pipeline.pexpire(tally, KEPT_MS + TALLY_MS)
        await pipeline.execute()

    async def tally(self, since_ms: int) -> dict[Reason, int]:
        pipeline = self._client.pipeline(transaction=False)
        for number in _tallies(since_ms, self._clock.now_ms()):
            pipeline.hgetall(f"{self._tally}{number}")
        sums: Counter[Reason] = Counter()
        found: list[dict[bytes, bytes]] = await pipeline.execute()
        for counts in found:
            for name, count in counts.items():
                tier, _, rule = name.decode().partition(SEPARATOR)
                sums[tier, rule] += int(count)
        return dict(sums)

    async def read(self, organisation: str, since_ms: int, count: int) -> list[RefusalEvent]:
        since_ms = max(since_ms, self._clock.now_ms() - KEPT_MS)
        entries: Any = await self._client.xrevrange(
            self._key(organisation), min=str(since_ms), count=min(count, READ_MAX)
        )
        return [_event(raw[b"r"]) for _, raw in entries]

    def _key(self, organisation: str) -> str:
        return self._prefix + organisation


def _tallied(events: Sequence[RefusalEvent]) -> Counter[Reason]:
    """A caller may name any tier; only those that a rule speaks of are told apart, so that reasons are few."""
    sums: Counter[Reason] = Counter()
    for event in events:
        sums[(event.tier, event.rule) if event.rule else ("", event.code)] += 1 + event.left_out
    return sums


def _tallies(since_ms: int, now_ms: int) -> range:
    return range(max(since_ms, now_ms - KEPT_MS) // TALLY_MS, now_ms // TALLY_MS + 1)


def _event(packed: bytes) -> RefusalEvent:
    """A later release may append fields."""
    values: list[Any] = msgpack.unpackb(packed)
    return RefusalEvent(*values[:FIELDS])
