"""What every engine does: token ids in, token ids out. Text, queues, people and money are not its business.

Counting: an engine hands out every token it generated for the reader, and only those. The end-of-sequence token is
neither handed out nor counted, so `completion_tokens` of a request is the number of ids handed out for all its choices.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Protocol

from core.wire import Job, TokenLogprob

Reason = Literal["stop", "length", "error", "aborted"]


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


Output = Tokens | ChoiceEnd


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

    def submit(self, job: Job) -> None:
        """Begin the job's `sampling.n` choices. Never blocks and never raises for a bad job: what cannot be served
        ends with reason `error` for every choice (for choice 0 if there is no sampling).

        `job.emitted_ids[choice]` are tokens of an earlier attempt: output, not prompt. They count for max_tokens,
        min_tokens, penalties, the grammar and the seed's positions; only what comes after them is handed out.

        A choice whose grammar is complete ends with `stop`, whatever min_tokens says. An engine without grammars, or
        a grammar that cannot be used, ends the job with `error`.
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
