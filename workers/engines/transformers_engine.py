"""The engine on Hugging Face's continuous batching: one model, one thread that steps it, requests that come and go."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from structlog.stdlib import BoundLogger

from core.catalog import Tier
from core.clock import Clock
from core.wire import Job
from workers.engines.base import (
    BAD_GRAMMAR,
    FAILED,
    LOST_GRAMMAR,
    NOT_RUNNING,
    RUNS_ALREADY,
    ChoiceEnd,
    EngineFailedError,
    EngineStats,
    Output,
    Reason,
    Tokens,
    choice_count,
    emitted,
    room_tokens,
    routed,
    unservable,
)
from workers.engines.cb_manager import Batcher, Progress, Sizes
from workers.engines.grammar import Constraint, Grammars
from workers.engines.sampling import Draw
from workers.text import Vocabulary

CLOSE_S = 5.0
# Few requests fill their whole context. If many do, the youngest give up their cache and compute it again later.
KV_SHARE = 4


@dataclass(slots=True)
class _Open:
    """A choice under way. `draw` is the batching manager's once it was added, until the choice is finished."""

    job: Job
    choice: int
    tokens_max: int
    count_experts: bool
    draw: Draw | None = None
    seen: int = 0


class TransformersEngine:
    """Weights are a folder or a hub id. Every choice of a job is a request of its own to the batching manager."""

    def __init__(self, tier: Tier, weights: Path | str, clock: Clock, log: BoundLogger) -> None:
        self._tier = tier
        self._weights = str(weights)
        self._clock = clock
        self._log = log
        self._batcher: Batcher | None = None
        self._grammars: Grammars | None = None
        self._compiling: set[asyncio.Task[None]] = set()
        self._serial = itertools.count()
        self._open: dict[str, _Open] = {}
        self._keys: dict[str, dict[int, str]] = {}  # request id -> choice -> key in _open
        self._outbox: list[Output] = []  # bounded by the slots and what each may still generate
        self._wake = asyncio.Event()
        self._last_step_s = clock.monotonic_s()
        self._failure: str | None = None
        self._closed = False

    async def start(self) -> None:
        tier = self._tier
        sizes = Sizes(
            batch_tokens=tier.batch_tokens_max,
            kv_tokens=max(tier.context_tokens, tier.slots * tier.context_tokens // KV_SHARE),
            threads=tier.threads,
        )
        loop = asyncio.get_running_loop()
        self._batcher = await asyncio.to_thread(
            Batcher.load, self._weights, tier.device, tier.dtype, sizes, self._clock, loop, self._receive
        )
        vocabulary = await asyncio.to_thread(Vocabulary.load, tier.tokenizer)
        self._grammars = await asyncio.to_thread(Grammars, vocabulary, self._batcher.eos_ids, self._batcher.vocabulary)

    def submit(self, job: Job, *, count_experts: bool = False) -> None:
        if not self._keys:
            self._last_step_s = self._clock.monotonic_s()
        problem = RUNS_ALREADY if job.request_id in self._keys else self._problem(job)
        if problem is not None:
            for choice in range(choice_count(job)):
                self._put(ChoiceEnd(job.request_id, choice, "error", problem))
            return
        begun = [self._begin(job, choice, count_experts) for choice in range(choice_count(job))]
        keys = [key for key in begun if key is not None]
        if job.grammar is None:
            for key in keys:
                self._add(key)
        else:
            task = asyncio.create_task(self._add_constrained(keys, job.grammar))
            self._compiling.add(task)
            task.add_done_callback(self._compiling.discard)

    def abort(self, request_id: str, choice: int | None = None) -> None:
        for number in tuple(self._keys.get(request_id, ())):
            if self._batcher is not None and choice in {None, number}:
                entry = self._open[self._keys[request_id][number]]
                experts = self._batcher.cancel(self._forget(request_id, number))
                if experts is not None:
                    self._put(routed(entry.job, number, experts))
                self._put(ChoiceEnd(request_id, number, "aborted"))

    async def steps(self) -> AsyncIterator[list[Output]]:
        """Raises EngineFailedError, after the errors of all that was open, when the model's thread has died."""
        while not self._closed:
            await self._wake.wait()
            self._wake.clear()
            outputs, self._outbox = self._outbox, []
            if outputs:
                yield outputs
            if self._failure is not None and not self._outbox:
                raise EngineFailedError(self._failure)

    def stats(self) -> EngineStats:
        begun_s = self._last_step_s if self._batcher is None else self._batcher.step_begun_s
        return EngineStats(running=len(self._keys), last_step_s=max(begun_s, self._last_step_s))

    async def close(self) -> None:
        self._closed = True
        self._wake.set()
        for task in self._compiling:
            task.cancel()
        batcher, self._batcher = self._batcher, None
        if batcher is not None:
            await asyncio.to_thread(batcher.stop, CLOSE_S)

    def _problem(self, job: Job) -> str | None:
        """Why the job cannot be served, or None."""
        if self._batcher is None:
            return NOT_RUNNING
        if self._batcher.failure is not None:
            self._die(self._batcher.failure)
            return FAILED
        return unservable(job, self._tier.context_tokens, self._batcher.vocabulary)

    def _begin(self, job: Job, choice: int, count_experts: bool) -> str | None:
        """The key of a choice that counts as open from now on; None if there is nothing to generate."""
        room = room_tokens(job, choice, self._tier.context_tokens)
        if room <= 0:
            self._put(ChoiceEnd(job.request_id, choice, "length"))
            return None
        key = f"{job.request_id}#{choice}#{next(self._serial)}"
        self._open[key] = _Open(job, choice, room, count_experts)
        self._keys.setdefault(job.request_id, {})[choice] = key
        return key

    def _add(self, key: str, constraint: Constraint | None = None) -> None:
        entry = self._open[key]
        job, emitted_ids = entry.job, emitted(entry.job, entry.choice)
        assert self._batcher is not None
        assert job.sampling is not None
        entry.draw = Draw(job.sampling, job.request_id, entry.choice, emitted_ids, job.prompt_ids, constraint)
        self._batcher.add(
            key, job.prompt_ids + emitted_ids, entry.draw, entry.tokens_max, count_experts=entry.count_experts
        )

    async def _add_constrained(self, keys: Sequence[str], grammar: str) -> None:
        """In a thread, for a large grammar takes long; meanwhile a choice may be aborted, or the engine may die."""
        assert self._grammars is not None
        for key in keys:
            if key not in self._open:
                continue
            emitted_ids = emitted(self._open[key].job, self._open[key].choice)
            constraint = await asyncio.to_thread(self._grammars.begin, grammar, emitted_ids)
            if self._batcher is not None and self._batcher.failure is not None:
                self._die(self._batcher.failure)
            entry = self._open.get(key)
            if entry is None:
                continue
            if constraint is None:
                self._end(entry, "error", BAD_GRAMMAR)
            else:
                self._add(key, constraint)

    def _receive(self, step: list[Progress]) -> None:
        """What one step yielded; the batching manager's thread has it called in the event loop."""
        if self._closed:
            return
        self._last_step_s = self._clock.monotonic_s()
        for progress in step:
            entry = self._open.get(progress.key)
            if entry is None:
                continue  # aborted while the step ran
            if progress.error is None:
                self._advance(entry, progress)
            else:
                self._log.error("the engine failed on a request", request_id=entry.job.request_id, error=progress.error)
                self._end(entry, "error", FAILED)
        if self._batcher is not None and self._batcher.failure is not None:
            self._die(next((progress.error for progress in step if progress.error), self._batcher.failure))

    def _advance(self, entry: _Open, progress: Progress) -> None:
        assert self._batcher is not None
        assert entry.draw is not None
        new = progress.token_ids[entry.seen :]
        stopped = progress.is_finished and bool(new) and new[-1] in self._batcher.eos_ids
        if stopped:
            new.pop()
        if new:
            reports = tuple(entry.draw.reports[entry.seen : entry.seen + len(new)])
            self._put(Tokens(entry.job.request_id, entry.choice, tuple(new), reports))
        entry.seen = len(progress.token_ids)
        if not progress.is_finished:
            return
        if progress.experts is not None:
            self._put(routed(entry.job, entry.choice, progress.experts))
        constraint = entry.draw.constraint
        if constraint is not None and not stopped:
            constraint.append(new[-1])  # the last token within max_tokens may be the grammar's last
            stopped = constraint.complete
        if constraint is not None and constraint.broken:
            self._end(entry, "error", LOST_GRAMMAR)
        else:
            self._end(entry, "stop" if stopped else "length")

    def _die(self, reason: str) -> None:
        if self._failure is not None:
            return
        self._log.error("the engine failed", tier=self._tier.name, error=reason)
        self._failure = reason
        for entry in tuple(self._open.values()):
            self._end(entry, "error", FAILED)
        self._wake.set()

    def _end(self, entry: _Open, reason: Reason, error: str | None = None) -> None:
        self._forget(entry.job.request_id, entry.choice)
        self._put(ChoiceEnd(entry.job.request_id, entry.choice, reason, error))

    def _forget(self, request_id: str, choice: int) -> str:
        choices = self._keys[request_id]
        key = choices.pop(choice)
        if not choices:
            del self._keys[request_id]
        del self._open[key]
        return key

    def _put(self, output: Output) -> None:
        self._outbox.append(output)
        self._wake.set()
