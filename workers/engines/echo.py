"""An engine without a model: deterministic words at a set pace, and faults on request. For benchmarks and drills.

The words depend on the prompt and the seed only, so that an answer begun elsewhere is continued word for word. Each is
certain: its log probability is 0, and there is no other at its place. Grammars are refused.
With `faults` on, a prompt may hold [[echo:NAME=VALUE]]:

    tokens=N    length of the answer
    pace=N      tokens per second
    fail=N      the request fails after N tokens (default: half of the answer)
    stall=N     the whole engine hangs after N tokens
    die=N       the process dies after N tokens
"""

import asyncio
import contextlib
import os
import re
from array import array
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from structlog.stdlib import BoundLogger

from core.catalog import Tier
from core.clock import Clock
from core.wire import Job, Sampling, TokenLogprob
from workers.engines.base import ChoiceEnd, EngineStats, Output, Reason, Tokens, choice_count, emitted
from workers.text import ChoiceText, Vocabulary

RING_WORDS = 1_024
TICK_S = 1.0
STEP_S = 0.005  # tokens due within it come in one step, so that hundreds of streams cost few wake-ups
DIED = 70
FAULTS = ("fail", "stall", "die")
_MARKER = re.compile(r"\[\[echo:(tokens|pace|fail|stall|die)(?:=(\d{1,7}))?\]\]")
_WORD = re.compile(r" [a-z]{3,9}")


@dataclass(slots=True)
class _Choice:
    """One answer on its way: `given` tokens of `length` are out. `fault_at` counts tokens; the fault comes before the
    next one.
    """

    request_id: str
    number: int
    ring_start: int
    given: int
    length: int
    reason: Reason
    tokens_per_s: float
    started_s: float
    given_before: int
    logprobs: int | None
    fault: str | None = None
    fault_at: int = 0

    def due(self, now_s: float) -> int:
        """How many tokens should be out by now."""
        limit = self.length if self.fault is None else self.fault_at
        if not self.tokens_per_s:
            return limit
        return min(limit, self.given_before + int((now_s - self.started_s) * self.tokens_per_s))

    def next_s(self) -> float:
        """When the next token is due."""
        if not self.tokens_per_s:
            return self.started_s
        return self.started_s + (self.given - self.given_before + 1) / self.tokens_per_s


class EchoEngine:
    def __init__(
        self, tier: Tier, weights: Path | str, clock: Clock, log: BoundLogger, die: Callable[[int], object] = os._exit
    ) -> None:
        del weights  # the words come from the tokenizer
        self._tier = tier
        self._options = tier.echo
        self._clock = clock
        self._log = log
        self._die = die
        self._vocabulary: Vocabulary | None = None
        self._ring: tuple[int, ...] = ()
        self._open: dict[str, dict[int, _Choice]] = {}
        self._out: list[Output] = []
        self._wake = asyncio.Event()
        self._stalled = False
        self._closed = False
        self._last_step_s = clock.monotonic_s()

    async def start(self) -> None:
        self._vocabulary = await asyncio.to_thread(Vocabulary.load, self._tier.tokenizer)
        self._ring = _words(self._vocabulary)

    def submit(self, job: Job, *, count_experts: bool = False) -> None:  # noqa: ARG002 - there are none
        now_s = self._clock.monotonic_s()
        if not self._open:
            self._last_step_s = now_s
        self._wake.set()
        problem = self._problem(job)
        if problem is not None or job.sampling is None:
            self._out += [ChoiceEnd(job.request_id, i, "error", problem) for i in range(choice_count(job))]
            return
        wishes = self._wishes(job)
        choices = {i: self._choice(job, job.sampling, i, wishes, now_s) for i in range(job.sampling.n)}
        self._open[job.request_id] = choices

    def abort(self, request_id: str, choice: int | None = None) -> None:
        choices = self._open.get(request_id, {})
        for number in list(choices) if choice is None else [choice]:
            if number in choices:
                self._end(choices[number], "aborted")
        self._wake.set()

    async def steps(self) -> AsyncIterator[list[Output]]:
        while not self._closed:
            self._wake.clear()
            outputs = [] if self._stalled else self._step()
            if outputs:
                yield outputs
                continue
            pause_s = self._pause_s()
            if pause_s is None:
                await self._wake.wait()
                continue
            with contextlib.suppress(TimeoutError):  # then something is due
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    def stats(self) -> EngineStats:
        return EngineStats(running=len(self._open), last_step_s=self._last_step_s)

    async def close(self) -> None:
        self._closed = True
        self._wake.set()

    def _problem(self, job: Job) -> str | None:
        if job.sampling is None:
            return "The job has no sampling."
        if job.grammar is not None:
            return "The echo engine knows no grammars."
        return "The job is already running." if job.request_id in self._open else None

    def _wishes(self, job: Job) -> dict[str, int | None]:
        if not self._options.faults or self._vocabulary is None:
            return {}
        text, _ = ChoiceText(self._vocabulary).push(job.prompt_ids)
        return {name: int(value) if value else None for name, value in _MARKER.findall(text)}

    def _choice(
        self, job: Job, sampling: Sampling, number: int, wishes: dict[str, int | None], now_s: float
    ) -> _Choice:
        wanted = max(wishes.get("tokens") or self._options.answer_tokens, sampling.min_tokens)
        room = max(0, min(sampling.max_tokens, self._tier.context_tokens - len(job.prompt_ids)))
        length = min(wanted, room)
        given = len(emitted(job, number))
        prefill_s = self._options.prefill_tokens_per_s and len(job.prompt_ids) / self._options.prefill_tokens_per_s
        fault = next((name for name in FAULTS if name in wishes), None) if wishes else None
        fault_at = wishes.get(fault) if fault is not None else None
        return _Choice(
            request_id=job.request_id,
            number=number,
            ring_start=crc32(array("q", (*job.prompt_ids, sampling.seed or 0, number)).tobytes()) % len(self._ring),
            given=given,
            length=max(length, given),
            reason="stop" if wanted < room else "length",
            tokens_per_s=float(wishes.get("pace") or self._options.tokens_per_s),
            started_s=now_s + prefill_s,
            given_before=given,
            logprobs=sampling.logprobs,
            fault=fault,
            fault_at=max(given, min(length, length // 2 if fault_at is None else fault_at)),
        )

    def _step(self) -> list[Output]:
        now_s = self._clock.monotonic_s()
        self._last_step_s = now_s
        for choice in [c for choices in self._open.values() for c in choices.values() if c.started_s <= now_s]:
            due = choice.due(now_s)
            if due > choice.given:
                ids = self._slice(choice.ring_start + choice.given, due - choice.given)
                logprobs = () if choice.logprobs is None else _certain(ids, choice.logprobs)
                self._out.append(Tokens(choice.request_id, choice.number, ids, logprobs))
                choice.given = due
            elif choice.fault is not None and choice.given >= choice.fault_at:
                self._misbehave(choice)
                continue
            if choice.given >= choice.length and choice.fault is None:
                self._end(choice, choice.reason)
        out, self._out = self._out, []
        return out

    def _misbehave(self, choice: _Choice) -> None:
        self._log.warning("a prompt asked for a fault", fault=choice.fault, request_id=choice.request_id)
        if choice.fault == "die":
            self._die(DIED)
        elif choice.fault == "stall":
            self._stalled = True
        else:
            self._end(choice, "error", "The prompt asked the echo engine to fail.")

    def _end(self, choice: _Choice, reason: Reason, error: str | None = None) -> None:
        choices = self._open[choice.request_id]
        del choices[choice.number]
        if not choices:
            del self._open[choice.request_id]
        self._out.append(ChoiceEnd(choice.request_id, choice.number, reason, error))

    def _slice(self, start: int, count: int) -> tuple[int, ...]:
        ring = self._ring
        start %= len(ring)
        ids = ring[start : start + count]
        while len(ids) < count:
            ids += ring[: count - len(ids)]
        return ids

    def _pause_s(self) -> float | None:
        """Until the next token is due; a busy engine steps at least once a tick, as real ones do."""
        if not self._open:
            return None
        if self._stalled:
            return TICK_S
        next_s = min(choice.next_s() for choices in self._open.values() for choice in choices.values())
        return min(TICK_S, max(STEP_S, next_s - self._clock.monotonic_s()))


def _words(vocabulary: Vocabulary) -> tuple[int, ...]:
    """Whole lower-case words of the vocabulary, in an order that looks random and never changes."""
    words = [i for i, surface in enumerate(vocabulary.surfaces) if _WORD.fullmatch(surface)]
    return tuple(sorted(words, key=lambda i: crc32(i.to_bytes(4, "little")))[:RING_WORDS])


def _certain(ids: tuple[int, ...], likeliest: int) -> tuple[TokenLogprob, ...]:
    return tuple([(0.0, ((i, 0.0),) if likeliest else ()) for i in ids])
