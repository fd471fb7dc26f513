"""What every engine does: token ids in, token ids out. Text, queues, people and money are not its business.

Counting: an engine hands out every token it generated for the reader, and only those. The end-of-sequence token is
neither handed out nor counted, so `completion_tokens` of a request is the number of ids handed out for all its choices.
"""

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Protocol

from core.experts import ExpertCounts, ExpertSample
from core.wire import Job, TokenLogprob

Reason = Literal["stop", "length", "error", "aborted"]

FAILED = "The engine failed."
NOT_RUNNING = "The engine is not running."
RUNS_ALREADY = "The job is already running."
BAD_GRAMMAR = "The grammar of the answer cannot be used."
LOST_GRAMMAR = "The answer could not be held to its grammar."


class EngineFailedError(RuntimeError):
    """What computes is gone; only a new process helps."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The next tokens of one choice, in order, at least one.

    `logprobs`, one for each token if the job asked for them, is of what the model said: the logarithm of the softmax
    of its raw scores, before penalties, grammar, temperature, top_k and top_p.
    """

    request_id: str
    choice: int
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ChoiceEnd:
    """The last word on one choice, exactly once. `stop`: the model ended by itself; `length`: max_tokens or the context
    is used up; `error` comes with one sentence without prompt or answer in it. `cached_tokens` is the part of the
    prompt that was not computed for this choice.
    """

    request_id: str
    choice: int
    reason: Reason
    error: str | None = None
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Routed:
    """How often each expert was chosen for one choice, prompt and output, counted as computed: not for what a cache
    held, again for what was computed again. Its last token is not computed. Comes once, as the choice ends or after it.
    """

    request_id: str
    choice: int
    sample: ExpertSample


Output = Tokens | ChoiceEnd | Routed


@dataclass(frozen=True, slots=True)
class EngineStats:
    """`running` counts requests with an open choice. `last_step_s` (monotonic) is when the last step ended, or when an
    idle engine was given work, whichever is later: a busy engine whose last step is long ago hangs.
    """

    running: int
    last_step_s: float


class Engine(Protocol):
    """Constructed as `Engine(tier, weights, clock, log)`; all methods are called on one event loop."""

    async def start(self) -> None:
        """Load the weights without blocking the event loop; returns when jobs can be submitted."""

    def submit(self, job: Job, *, count_experts: bool = False) -> None:
        """Begin the job's `sampling.n` choices. Never blocks and never raises for a bad job: what cannot be served
        ends with reason `error` for every choice (for choice 0 if there is no sampling).

        `job.emitted_ids[choice]` are tokens of an earlier attempt: output, not prompt. They count for max_tokens,
        min_tokens, penalties, the grammar and the seed's positions; only what comes after them is handed out.

        A choice whose grammar is complete ends with `stop`, whatever min_tokens says. An engine without grammars, or
        a grammar that cannot be used, ends the job with `error`.

        `count_experts`: an engine whose model is a mixture of experts tells by Routed how they were chosen.
        """

    def abort(self, request_id: str, choice: int | None = None) -> None:
        """Stop one choice, or all. A ChoiceEnd `aborted` follows for each that was open, none for what had ended; no
        tokens come after it. Unknown ids are ignored.
        """

    def steps(self) -> AsyncIterator[list[Output]]:
        """Everything that one engine step brought, for all requests; called once. Ends after close()."""

    def stats(self) -> EngineStats: ...

    async def close(self) -> None:
        """Stop stepping and free the device. What is still open gets no ChoiceEnd."""


def choice_count(job: Job) -> int:
    return 1 if job.sampling is None else job.sampling.n


def emitted(job: Job, choice: int) -> tuple[int, ...]:
    """Tokens of this choice that an earlier attempt delivered."""
    return job.emitted_ids[choice] if choice < len(job.emitted_ids) else ()


def routed(job: Job, choice: int, experts: ExpertCounts) -> Routed:
    return Routed(job.request_id, choice, ExpertSample(job.tier, job.organisation, job.workspace, experts))


def room_tokens(job: Job, choice: int, context_tokens: int) -> int:
    """How many tokens the choice may still put out; 0 or less: none."""
    assert job.sampling is not None
    room = min(job.sampling.max_tokens, context_tokens - len(job.prompt_ids))
    return room - len(emitted(job, choice))


def unservable(job: Job, context_tokens: int, vocabulary: int) -> str | None:
    """Why an engine that continues token ids cannot serve the job, or None. Ids are below `vocabulary`."""
    if job.sampling is None or not job.prompt_ids:
        return "This engine continues token ids; the job has none."
    if len(job.prompt_ids) > context_tokens:
        return "The prompt is longer than the model's context."
    # One id outside the vocabulary would fail the step, and with it everybody.
    if not all(0 <= token_id < vocabulary for token_id in itertools.chain(job.prompt_ids, *job.emitted_ids)):
        return "The prompt has a token id outside the model's vocabulary."
    return None
