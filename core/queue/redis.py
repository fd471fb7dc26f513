"""The queue over Redis: each promise of `base.py` is one Lua script of `core/meter/scripts`, run atomically."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgpack
from redis.asyncio import Redis

from core.clock import Clock, SystemClock
from core.errors import Refusal
from core.meter.keys import cell_key, replies_key
from core.queue.base import (
    REPLIES_KEPT_MS,
    Admission,
    Admitted,
    Finish,
    Outcome,
    QueueSettings,
    QueueStats,
    Refused,
    RefusedBy,
    Renewal,
    RequestState,
    Settlement,
    Standing,
    TierStats,
    WorkerSlot,
)
from core.queue.rules import RuleState
from core.redis import BLOCK_S_MAX, CALL_S, Calls, Script
from core.wire import End, Event, Job, Lost, Usage, pack_events, pack_job, unpack_events, unpack_job

REPLIES_MAX = 65_536
REPLIES_READ_MAX = 512
TAKE_MAX = 128
TRIM_AFTER = 512
REPLIES_BEAT_S = 1.0
END_KEPT_BYTES_MAX = 16_384

ADMIT = Script("admit", "shared")
TAKE = Script("take", "shared", "settle")
RENEW = Script("renew", "shared")
FINISH = Script("finish", "shared", "settle")
CANCEL = Script("cancel", "shared", "settle")
RETRY = Script("retry", "shared", "settle")
STANDING = Script("standing", "shared")
LEAVE = Script("leave", "shared", "settle")
REAP = Script("reap", "shared", "settle")
GENERATION = Script("generation", "shared")
STATS = Script("stats", "shared")

# What a submitter is told whose request was settled without an end that could be kept.
OUTCOME_SENTENCES = {
    Outcome.FINISHED: "The answer was lost on its way, and is too large to be kept.",
    Outcome.FAILED: "The worker was lost and the request could not be run again; nothing is charged.",
    Outcome.TIMEOUT: "The request passed its deadline; nothing is charged.",
    Outcome.CANCELLED: "The request was cancelled before it started; nothing is charged.",
    Outcome.GATEWAY_LOST: "The gateway that asked is gone; nothing is charged.",
}


class _Cell:
    """What the three sides share: the cell's key, batched calls, and the time that scripts are told."""

    def __init__(self, client: Redis, settings: QueueSettings, clock: Clock | None) -> None:
        self.client = client
        self.settings = settings
        self.key = cell_key(settings.cell)
        self.calls = Calls(client)
        self._clock = clock

    async def run(self, script: Script, *arguments: Any) -> Any:
        (answer,) = await self.run_many(script, [arguments])
        return answer

    async def run_many(self, script: Script, many: Sequence[tuple[Any, ...]]) -> list[Any]:
        now = "" if self._clock is None else str(self._clock.now_ms())
        return await self.calls.scripts(script, self.key, [(now, *arguments) for arguments in many])

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

    async def admit(self, admission: Admission) -> Admitted | Refused:
        job = admission.job
        bounds = self._cell.settings.tiers[job.tier]
        meta = {
            "id": job.request_id,
            "org": job.organisation,
            "ws": job.workspace,
            "key": admission.key_id,
            "tier": job.tier,
            "band": job.band,
            "kind": job.kind,
            "sub": job.submitter,
            "str": job.streamed,
            "dl": job.deadline_ms,
            "cost": job.cost_expected,
            "pt": job.prompt_tokens,
            "out": admission.output_reserved,
            "pv": admission.price.version,
            "pi": admission.price.input_nano,
            "pc": admission.price.cached_nano,
            "po": admission.price.output_nano,
            "weight": admission.weight,
            "gen": admission.generation,
            "wait": admission.queue_wait_ms_max,
            "qmax": bounds.queue_jobs_max,
            "rules": [(rule.kind.value, rule.scope, rule.scope_id, rule.limit) for rule in admission.rules],
        }
        answer = await self._cell.run(ADMIT, msgpack.packb(meta), pack_job(job))
        if answer[0] == 0:
            return _refused(answer)
        _, admitted_ms, reserved_nano, queue_wait_ms, *pairs = answer
        states = tuple(
            RuleState(rule, remaining, reset_ms)
            for rule, remaining, reset_ms in zip(admission.rules, pairs[::2], pairs[1::2], strict=True)
        )
        return Admitted(job.request_id, admitted_ms, reserved_nano, queue_wait_ms, states)

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
        return _standing(request_id, await self._cell.run(RETRY, request_id, attempt))

    async def cancel(
        self, request_id: str, completion_tokens_max: int, outcome: Outcome = Outcome.CANCELLED
    ) -> Standing:
        return _standing(request_id, await self._cell.run(CANCEL, request_id, completion_tokens_max, outcome.value))

    async def standing(self, request_id: str) -> Standing:
        return _standing(request_id, await self._cell.run(STANDING, request_id))

    async def close(self) -> None:
        """Nobody listens any more: what workers send from now on tells them so."""
        await self._cell.calls.command("DEL", self._key)
        await self._cell.calls.close()
        await self._waiting.close()


class RedisWorkerQueue:
    def __init__(self, client: Redis, settings: QueueSettings, clock: Clock | None = None) -> None:
        self._cell = _Cell(client, settings, clock)
        self._listening: set[str] = set()
        self._waiting: dict[str, Calls] = {}

    async def take(self, slot: WorkerSlot, room: int, wait_s: float) -> list[Job]:
        """Looks at once, unless the last look left nothing: then the bell tells when there is something to take."""
        if slot.worker_id not in self._listening or room <= 0 or wait_s <= 0:
            jobs = await self._take(slot, room)
            if jobs or wait_s <= 0:
                return jobs
        own = f"{self._cell.key}:wb:{slot.worker_id}"
        bells = [f"{self._cell.key}:bell:{slot.tier}", own] if room > 0 else [own]
        waiting = self._waiting.setdefault(slot.worker_id, Calls(self._cell.client, BLOCK_S_MAX + CALL_S))
        rung = await waiting.command("BLPOP", *bells, min(wait_s, BLOCK_S_MAX))
        if rung is None:
            self._listening.discard(slot.worker_id)  # a look every second, whatever the bell says
            return []
        return [] if rung[0] == own.encode() else await self._take(slot, room)

    async def renew(self, slot: WorkerSlot) -> Renewal:
        held, *cancelled = await self._cell.run(RENEW, slot.worker_id, self._cell.settings.lease_ms)
        return Renewal(bool(held), tuple(request_id.decode() for request_id in cancelled))

    async def send(self, replies: Mapping[str, Sequence[Event]]) -> frozenset[str]:
        return await self._cell.send(replies)

    async def finish(self, finishes: Sequence[Finish]) -> list[Settlement]:
        answers = await self._cell.run_many(FINISH, [_finish_arguments(finish) for finish in finishes])
        return [_settlement(finish.end, answer) for finish, answer in zip(finishes, answers, strict=True)]

    async def leave(self, slot: WorkerSlot) -> None:
        self._listening.discard(slot.worker_id)
        if slot.worker_id in self._waiting:
            await self._waiting.pop(slot.worker_id).close()
        await self._cell.tell_losses(await self._cell.run(LEAVE, slot.worker_id))

    async def _take(self, slot: WorkerSlot, room: int) -> list[Job]:
        lease_ms = self._cell.settings.lease_ms
        reserve = self._cell.settings.tiers[slot.tier].pool_reserve
        room = min(room, TAKE_MAX)
        flat = await self._cell.run(TAKE, slot.worker_id, slot.tier, slot.slots, room, lease_ms, reserve)
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

    async def seed_credit(self, organisation: str, amount_nano: int) -> None:
        await self._cell.calls.command("HSETNX", f"{self._cell.key}:credit", organisation, amount_nano)

    async def set_generation(self, organisation: str, generation: int) -> None:
        await self._cell.run(GENERATION, organisation, generation)

    async def generations(self, organisations: Sequence[str]) -> Mapping[str, int]:
        if not organisations:
            return {}
        found = await self._cell.calls.command("HMGET", f"{self._cell.key}:gen", *organisations)
        return {name: int(value) for name, value in zip(organisations, found, strict=True) if value is not None}

    async def stats(self, tiers: Sequence[str]) -> QueueStats:
        opened, backlog, dead, *rest = await self._cell.run(STATS, *tiers)
        by_tier = {name: TierStats(*rest[4 * i : 4 * i + 4]) for i, name in enumerate(tiers)}
        return QueueStats(by_tier, opened, backlog, dead)

    async def close(self) -> None:
        await self._cell.calls.close()


def _append(submitter: str, events: Sequence[Event]) -> tuple[Any, ...]:
    """No stream, no reader: nothing is made for a submitter that is gone."""
    bound = ("NOMKSTREAM", "MAXLEN", "~", REPLIES_MAX)
    return ("XADD", replies_key(submitter), *bound, "*", "b", pack_events(list(events)))


def _finish_arguments(finish: Finish) -> tuple[Any, ...]:
    end = finish.end
    usage = end.usage
    kept = pack_events([end])
    return (
        end.request_id,
        end.attempt,
        finish.worker_id,
        finish.outcome.value,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        finish.first_token_ms,
        kept if len(kept) <= END_KEPT_BYTES_MAX else b"",
    )


def _settlement(end: End, answer: Sequence[int]) -> Settlement:
    accepted, prompt, completion, cached, cost_nano = answer
    if not accepted:
        return Settlement(accepted=False, end=end)
    return Settlement(accepted=True, end=replace(end, usage=Usage(prompt, completion, cached), cost_nano=cost_nano))


def _entries(found: Any) -> list[Any]:
    """Id and fields of what XREAD found in one stream, in either protocol's shape."""
    if not found:
        return []
    entries: list[Any] = next(iter(found.values())) if isinstance(found, dict) else found[0][1]
    return entries


def _refused(answer: Sequence[Any]) -> Refused:
    _, by, rule, scope, limit, remaining, retry_ms = answer
    refusal = Refusal(rule.decode(), scope.decode(), limit, remaining, None if retry_ms < 0 else retry_ms)
    return Refused(RefusedBy(by.decode()), refusal)


def _standing(request_id: str, answer: Sequence[Any]) -> Standing:
    name, attempt, ended, position, wait_ms, *settled = answer
    state = RequestState(name.decode())
    if state is not RequestState.SETTLED:
        return Standing(state, attempt, None, position, wait_ms)
    outcome, prompt, completion, cached, cost_nano = settled
    if ended:
        end = unpack_events(ended)[0]
        assert isinstance(end, End)
    else:  # settled without a worker's word
        sentence = OUTCOME_SENTENCES[Outcome(outcome.decode())]
        end = End(request_id, attempt, finish_reasons=("error",), error=sentence)
    end = replace(end, usage=Usage(prompt, completion, cached), cost_nano=cost_nano)
    return Standing(state, attempt, end)
