"""The engine on Hugging Face's continuous batching: one model, one thread that steps it, requests that come and go."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from structlog.stdlib import BoundLogger

from core.catalog import Tier
from core.clock import Clock
from core.wire import Job
from workers.engines.base import ChoiceEnd, EngineStats, Output, Reason, Tokens, choice_count, emitted
from workers.engines.cb_manager import Batcher, Progress, Sizes
from workers.engines.sampling import Draw

CLOSE_S = 5.0
FAILED = "The engine failed."
# Few requests fill their whole context. If many do, the youngest give up their cache and compute it again later.
KV_SHARE = 4


class EngineFailedError(RuntimeError):
    """The model's thread is gone; only a new process helps."""


@dataclass(slots=True)
class _Open:
    request_id: str
    choice: int
    seen: int = 0


class TransformersEngine:
    """Weights are a folder or a hub id. Every choice of a job is a request of its own to the batching manager."""

    def __init__(self, tier: Tier, weights: Path | str, clock: Clock, log: BoundLogger) -> None:
        self._tier = tier
        self._weights = str(weights)
        self._clock = clock
        self._log = log
        self._batcher: Batcher | None = None
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

    def submit(self, job: Job) -> None:
        if not self._keys:
            self._last_step_s = self._clock.monotonic_s()
        problem = "The job is already running." if job.request_id in self._keys else self._problem(job)
        for choice in range(choice_count(job)):
            if problem is not None:
                self._put(ChoiceEnd(job.request_id, choice, "error", problem))
            else:
                self._begin(job, choice)

    def abort(self, request_id: str, choice: int | None = None) -> None:
        for number in tuple(self._keys.get(request_id, ())):
            if self._batcher is not None and choice in {None, number}:
                self._batcher.cancel(self._forget(request_id, number))
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
        batcher, self._batcher = self._batcher, None
        if batcher is not None:
            await asyncio.to_thread(batcher.stop, CLOSE_S)

    def _problem(self, job: Job) -> str | None:
        """Why the job cannot be served, or None."""
        if self._batcher is None:
            return "The engine is not running."
        if self._batcher.failure is not None:
            self._die(self._batcher.failure)
            return FAILED
        return _unservable(job, self._tier.context_tokens, self._batcher.vocabulary)

    def _begin(self, job: Job, choice: int) -> None:
        assert self._batcher is not None
        assert job.sampling is not None
        emitted_ids = emitted(job, choice)
        room = min(job.sampling.max_tokens, self._tier.context_tokens - len(job.prompt_ids)) - len(emitted_ids)
        if room <= 0:
            self._put(ChoiceEnd(job.request_id, choice, "length"))
            return
        key = f"{job.request_id}#{choice}#{next(self._serial)}"
        self._open[key] = _Open(job.request_id, choice)
        self._keys.setdefault(job.request_id, {})[choice] = key
        draw = Draw(job.sampling, job.request_id, choice, emitted_ids)
        self._batcher.add(key, job.prompt_ids + emitted_ids, draw, room)

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
                self._log.error("the engine failed on a request", request_id=entry.request_id, error=progress.error)
                self._end(entry, "error", FAILED)
        if self._batcher is not None and self._batcher.failure is not None:
            self._die(next((progress.error for progress in step if progress.error), self._batcher.failure))

    def _advance(self, entry: _Open, progress: Progress) -> None:
        assert self._batcher is not None
        new = progress.token_ids[entry.seen :]
        entry.seen = len(progress.token_ids)
        stopped = progress.is_finished and bool(new) and new[-1] in self._batcher.eos_ids
        if stopped:
            new.pop()
        if new:
            self._put(Tokens(entry.request_id, entry.choice, tuple(new)))
        if progress.is_finished:
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
        self._forget(entry.request_id, entry.choice)
        self._put(ChoiceEnd(entry.request_id, entry.choice, reason, error))

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


def _unservable(job: Job, context_tokens: int, vocabulary: int) -> str | None:
    if job.sampling is None or not job.prompt_ids:
        return "This engine continues token ids; the job has none."
    if job.grammar is not None or job.sampling.logprobs is not None:
        return "This engine knows no grammars and no log-probabilities."
    if len(job.prompt_ids) > context_tokens:
        return "The prompt is longer than the model's context."
    # One id outside the vocabulary would fail the step, and with it everybody.
    if not all(0 <= token_id < vocabulary for token_id in itertools.chain(job.prompt_ids, *job.emitted_ids)):
        return "The prompt has a token id outside the model's vocabulary."
    return None
