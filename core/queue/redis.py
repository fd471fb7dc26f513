"""The queue over Redis: each promise of `base.py` is one Lua script of `core/meter/scripts`, run atomically."""

from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from core.clock import Clock, SystemClock
from core.meter.cell import Cell
from core.meter.keys import replies_key
from core.queue.base import (
    REPLIES_KEPT_MS,
    Admission,
    Admitted,
    Extended,
    Extension,
    Finish,
    OpenRequest,
    Outcome,
    QueueSettings,
    QueueStats,
    Refused,
    Renewal,
    Repeated,
    Settlement,
    Standing,
    TierStats,
    WorkerSlot,
)
from core.queue.redis_answers import (
    OPEN_FIELDS,
    admission_answer,
    finish_arguments,
    open_request_answer,
    packed_admission,
    settlement_answer,
    standing_answer,
)
from core.redis import BLOCK_S_MAX, CALL_S, Calls, Script
from core.wire import Event, Job, Lost, pack_events, pack_job, unpack_events, unpack_job

REPLIES_MAX = 65_536
REPLIES_READ_MAX = 512
TAKE_MAX = 128
TRIM_AFTER = 512
DRAINED = b"drained"
REPLIES_BEAT_S = 1.0

SETTLING = ("shared", "rules", "settle")
ADMIT = Script("admit", "shared", "rules", "windows")
TAKE = Script("take", *SETTLING)
RENEW = Script("renew", "shared")
EXTEND = Script("extend", "shared", "rules")
FINISH = Script("finish", *SETTLING)
CANCEL = Script("cancel", *SETTLING)
RETRY = Script("retry", *SETTLING)
STANDING = Script("standing", "shared")
LEAVE = Script("leave", *SETTLING)
REAP = Script("reap", *SETTLING)
GENERATION = Script("generation", "shared")
STATS = Script("stats", "shared")


class _Cell(Cell):
    """What the three sides share."""

    def __init__(self, client: Redis, settings: QueueSettings, clock: Clock | None) -> None:
        super().__init__(client, settings.cell, clock)
        self.settings = settings

    async def tell_losses(self, flat: Sequence[Any]) -> int:
        """Send Lost to the submitters of what a script declared lost."""
        by_submitter: dict[str, list[Event]] = {}
        for request_id, submitter, attempt in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
            by_submitter.setdefault(submitter.decode(), []).append(Lost(request_id.decode(), attempt))
        await self.send(by_submitter)
        return len(flat) // 3

    async def send(self, replies: Mapping[str, Sequence[Event]]) -> frozenset[str]:
        submitters = list(replies)
        if not submitters:
            return frozenset()
        answers = await self.calls.commands([_append(name, replies[name]) for name in submitters])
        return frozenset(name for name, answer in zip(submitters, answers, strict=True) if answer is None)


class RedisSubmitterQueue:
    def __init__(self, client: Redis, settings: QueueSettings, submitter: str, clock: Clock | None = None) -> None:
        self._cell = _Cell(client, settings, clock)
        self._waiting = Calls(client, BLOCK_S_MAX + CALL_S)
        self._key = replies_key(submitter)
        self._last_id = "0-0"
        self._read_since_trim = 0
        self._kept_alive_s = 0.0
        self._clock = clock or SystemClock()

    async def open(self) -> None:
        """Make the reply stream; needed before the first admission."""
        await self._cell.calls.command("XADD", self._key, "*", "o", "1")
        await self._keep_alive()

    async def admit(self, admission: Admission) -> Admitted | Refused | Repeated:
        bounds = self._cell.settings.tiers[admission.job.tier]
        answer = await self._cell.run(ADMIT, packed_admission(admission, bounds), pack_job(admission.job))
        return admission_answer(admission, answer)

    async def receive(self, wait_s: float) -> list[Event]:
        if self._clock.monotonic_s() - self._kept_alive_s > REPLIES_BEAT_S and not await self._keep_alive():
            self._last_id = "0-0"  # Redis was wiped, or we were silent for too long: be reachable again
            await self.open()
        block_ms = max(1, round(min(wait_s, BLOCK_S_MAX) * 1000))
        found = await self._waiting.command(
            "XREAD", "COUNT", REPLIES_READ_MAX, "BLOCK", block_ms, "STREAMS", self._key, self._last_id
        )
        entries = _entries(found)
        events: list[Event] = []
        for entry_id, (name, value, *_) in entries:
            self._last_id = entry_id.decode()
            if name == b"b":
                events += unpack_events(value)
        self._read_since_trim += len(entries)
        if self._read_since_trim >= TRIM_AFTER:
            self._read_since_trim = 0
            await self._cell.calls.command("XTRIM", self._key, "MINID", self._last_id)
        return events

    async def _keep_alive(self) -> bool:
        self._kept_alive_s = self._clock.monotonic_s()
        return bool(await self._cell.calls.command("PEXPIRE", self._key, REPLIES_KEPT_MS))

    async def retry(self, request_id: str, attempt: int) -> Standing:
        return standing_answer(request_id, await self._cell.run(RETRY, request_id, attempt))

    async def cancel(
        self, request_id: str, completion_tokens_max: int, outcome: Outcome = Outcome.CANCELLED
    ) -> Standing:
        return standing_answer(
            request_id, await self._cell.run(CANCEL, request_id, completion_tokens_max, outcome.value)
        )

    async def standing(self, request_id: str) -> Standing:
        return standing_answer(request_id, await self._cell.run(STANDING, request_id))

    async def close(self) -> None:
        """Nobody listens any more: what workers send from now on tells them so."""
        await self._cell.calls.command("DEL", self._key)
        await self._cell.calls.close()
        await self._waiting.close()


class RedisWorkerQueue:
    def __init__(self, client: Redis, settings: QueueSettings, clock: Clock | None = None) -> None:
        self._cell = _Cell(client, settings, clock)
        self._listening: set[str] = set()
        self._drained: set[str] = set()  # the tier's bell is not for them
        self._waiting: dict[str, Calls] = {}

    async def take(self, slot: WorkerSlot, room: int, wait_s: float) -> list[Job]:
        """Looks at once, unless the last look left nothing: then the bell tells when there is something to take."""
        if slot.worker_id not in self._listening or room <= 0 or wait_s <= 0:
            jobs = await self._take(slot, room)
            if jobs or wait_s <= 0:
                return jobs
        own = f"{self._cell.key}:wb:{slot.worker_id}"
        is_open = room > 0 and slot.worker_id not in self._drained
        bells = [f"{self._cell.key}:bell:{slot.tier}", own] if is_open else [own]
        waiting = self._waiting.setdefault(slot.worker_id, Calls(self._cell.client, BLOCK_S_MAX + CALL_S))
        rung = await waiting.command("BLPOP", *bells, min(wait_s, BLOCK_S_MAX))
        if rung is None:
            self._listening.discard(slot.worker_id)  # a look every second, whatever the bell says
            return []
        if rung[0] == own.encode():
            self._listening.discard(slot.worker_id)
            return []
        return await self._take(slot, room)

    async def renew(self, slot: WorkerSlot) -> Renewal:
        held, *cancelled = await self._cell.run(RENEW, slot.worker_id, self._cell.settings.lease_ms)
        return Renewal(bool(held), tuple(request_id.decode() for request_id in cancelled))

    async def send(self, replies: Mapping[str, Sequence[Event]]) -> frozenset[str]:
        return await self._cell.send(replies)

    async def finish(self, finishes: Sequence[Finish]) -> list[Settlement]:
        answers = await self._cell.run_many(FINISH, [finish_arguments(finish) for finish in finishes])
        return [settlement_answer(finish.end, answer) for finish, answer in zip(finishes, answers, strict=True)]

    async def extend(self, extensions: Sequence[Extension]) -> list[Extended]:
        many = [(one.request_id, one.attempt, one.worker_id, one.output_tokens) for one in extensions]
        return [
            Extended(bool(accepted), covered, refused_by.decode())
            for accepted, covered, refused_by in await self._cell.run_many(EXTEND, many)
        ]

    async def leave(self, slot: WorkerSlot) -> None:
        self._listening.discard(slot.worker_id)
        self._drained.discard(slot.worker_id)
        if slot.worker_id in self._waiting:
            await self._waiting.pop(slot.worker_id).close()
        await self._cell.tell_losses(await self._cell.run(LEAVE, slot.worker_id))

    async def _take(self, slot: WorkerSlot, room: int) -> list[Job]:
        lease_ms = self._cell.settings.lease_ms
        reserve = self._cell.settings.tiers[slot.tier].pool_reserve
        room = min(room, TAKE_MAX)
        flat = await self._cell.run(TAKE, slot.worker_id, slot.tier, slot.slots, room, lease_ms, reserve)
        self._drained.discard(slot.worker_id)
        if flat == [DRAINED]:
            self._drained.add(slot.worker_id)
            flat = []
        jobs = [unpack_job(raw, attempt) for raw, attempt in zip(flat[::2], flat[1::2], strict=True)]
        if len(jobs) < room:
            self._listening.add(slot.worker_id)
        else:
            self._listening.discard(slot.worker_id)
        return jobs


class RedisQueueKeeper:
    def __init__(self, client: Redis, settings: QueueSettings, clock: Clock | None = None) -> None:
        self._cell = _Cell(client, settings, clock)

    async def reap(self) -> int:
        return await self._cell.tell_losses(await self._cell.run(REAP, self._cell.settings.lease_ms))

    async def set_generation(self, organisation: str, generation: int) -> None:
        await self._cell.run(GENERATION, organisation, generation)

    async def generations(self, organisations: Sequence[str]) -> Mapping[str, int]:
        if not organisations:
            return {}
        asked = [("HGET", f"{self._cell.key}:o:{name}", "gen") for name in organisations]
        found = await self._cell.calls.commands(asked)
        return {name: int(value) for name, value in zip(organisations, found, strict=True) if value is not None}

    async def stats(self, tiers: Sequence[str]) -> QueueStats:
        opened, backlog, dead, *rest = await self._cell.run(STATS, *tiers)
        by_tier = {name: TierStats(*rest[4 * i : 4 * i + 4]) for i, name in enumerate(tiers)}
        return QueueStats(by_tier, opened, backlog, dead)

    async def open_request(self, request_id: str) -> OpenRequest | None:
        found = await self._cell.calls.command("HMGET", f"{self._cell.key}:r:{request_id}", *OPEN_FIELDS)
        return None if found[0] is None else open_request_answer(request_id, found)

    async def close(self) -> None:
        await self._cell.calls.close()


def _append(submitter: str, events: Sequence[Event]) -> tuple[Any, ...]:
    """No stream, no reader: nothing is made for a submitter that is gone."""
    bound = ("NOMKSTREAM", "MAXLEN", "~", REPLIES_MAX)
    return ("XADD", replies_key(submitter), *bound, "*", "b", pack_events(list(events)))


def _entries(found: Any) -> list[Any]:
    """Id and fields of what XREAD found in one stream, in either protocol's shape."""
    if not found:
        return []
    entries: list[Any] = next(iter(found.values())) if isinstance(found, dict) else found[0][1]
    return entries
