"""An engine's token ids as the queue's events: text, stop strings, finish reasons, counted usage."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from structlog.stdlib import BoundLogger

from core.queue.executor import Ended, ExecutorStats
from core.wire import End, Job, Piece, Usage
from workers.engines.base import ChoiceEnd, Engine, Tokens, choice_count, emitted
from workers.text import ChoiceText, Vocabulary

ENGINE_FAILED = "The engine failed on this request."


@dataclass(slots=True)
class _Choice:
    """`count` tokens belong to the answer so far, those of an earlier attempt included."""

    text: ChoiceText
    count: int = 0
    finish_reason: str | None = None
    ended: bool = False
    cached_tokens: int = 0


@dataclass(slots=True)
class _Request:
    job: Job
    choices: list[_Choice]
    open: int
    failed: bool = False


class Generator:
    """An Executor over an Engine. A choice that reaches a stop string is aborted alone; a choice that fails takes its
    whole request with it, for half an answer is not charged.
    """

    def __init__(self, engine: Engine, vocabulary: Vocabulary, log: BoundLogger) -> None:
        self._engine = engine
        self._vocabulary = vocabulary
        self._log = log
        self._requests: dict[str, _Request] = {}

    async def start(self) -> None:
        await self._engine.start()

    def submit(self, job: Job) -> None:
        choices = [self._choice(job, number) for number in range(choice_count(job))]
        self._requests[job.request_id] = _Request(job, choices, open=len(choices))
        self._engine.submit(job)
        for number, choice in enumerate(choices):
            if choice.finish_reason is not None:  # the earlier attempt got as far as the stop string
                self._engine.abort(job.request_id, number)

    def abort(self, request_id: str) -> None:
        self._engine.abort(request_id)

    async def steps(self) -> AsyncIterator[list[Piece | Ended]]:
        async for outputs in self._engine.steps():
            events: list[Piece | Ended] = []
            for output in outputs:
                request = self._requests.get(output.request_id)
                if request is None:
                    continue
                if isinstance(output, Tokens):
                    self._tokens(request, output, events)
                else:
                    self._choice_end(request, output, events)
            if events:
                yield events

    def stats(self) -> ExecutorStats:
        stats = self._engine.stats()
        return ExecutorStats(running=stats.running, last_step_s=stats.last_step_s)

    async def close(self) -> None:
        await self._engine.close()

    def _choice(self, job: Job, number: int) -> _Choice:
        if job.sampling is None:
            return _Choice(ChoiceText(self._vocabulary))
        choice = _Choice(ChoiceText(self._vocabulary, job.sampling.stop, job.sampling.min_tokens))
        before = emitted(job, number)
        if before:
            _, choice.count = choice.text.push(before)
            choice.finish_reason = "stop" if choice.text.stopped else None
        return choice

    def _tokens(self, request: _Request, tokens: Tokens, events: list[Piece | Ended]) -> None:
        choice = request.choices[tokens.choice]
        if choice.finish_reason is not None:  # computed after the stop string, before the engine heard of it
            return
        text, used = choice.text.push(tokens.token_ids)
        token_ids = tokens.token_ids[:used]
        events.append(
            Piece(tokens.request_id, request.job.attempt, tokens.choice, choice.count, token_ids, text),
        )
        choice.count += used
        if choice.text.stopped:
            choice.finish_reason = "stop"
            self._engine.abort(tokens.request_id, tokens.choice)

    def _choice_end(self, request: _Request, end: ChoiceEnd, events: list[Piece | Ended]) -> None:
        choice = request.choices[end.choice]
        if choice.ended:
            return
        choice.ended = True
        choice.cached_tokens = end.cached_tokens
        rest = choice.text.flush()
        if rest:
            events.append(Piece(end.request_id, request.job.attempt, end.choice, choice.count, (), rest))
        if choice.finish_reason is None:
            choice.finish_reason = end.reason if end.reason in {"stop", "length"} else "error"
        if end.reason == "error" and not request.failed:
            request.failed = True
            self._log.warning("engine failed on a request", request_id=end.request_id, reason=end.error)
            self._engine.abort(end.request_id)
        request.open -= 1
        if not request.open:
            del self._requests[end.request_id]
            events.append(_ended(request))


def _ended(request: _Request) -> Ended:
    """`cached_tokens` is what no choice had to compute: the prompt is billed once."""
    usage = Usage(
        prompt_tokens=request.job.prompt_tokens,
        completion_tokens=sum([choice.count for choice in request.choices]),
        cached_tokens=min([choice.cached_tokens for choice in request.choices]),
    )
    end = End(
        request_id=request.job.request_id,
        attempt=request.job.attempt,
        finish_reasons=tuple([choice.finish_reason or "error" for choice in request.choices]),
        usage=usage,
        error=ENGINE_FAILED if request.failed else None,
    )
    return Ended(end, failed=request.failed)
