"""One job under way: what its choices have put out, what waits until it is covered, and how it ended."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from core.queue.executor import Ended
from core.wire import Answer, End, Job, Piece, TokenLogprob, Usage
from workers.engines.base import ChoiceEnd, Tokens, choice_count, emitted
from workers.text import ChoiceText, Vocabulary

ENGINE_FAILED = "The engine failed on this request."


@dataclass(slots=True)
class _Choice:
    """`count` tokens belong to the answer so far, those of an earlier attempt included. `end` is the engine's last
    word, which waits as long as tokens before it are withheld; `cut`: some of those were dropped.
    """

    text: ChoiceText
    count: int = 0
    finish_reason: str | None = None
    end: ChoiceEnd | None = None
    cut: bool = False
    ended: bool = False
    shown: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)


class Request:
    """`abort(choice)` stops one choice in the engine, `abort(None)` all. What is to be told is appended to `events`."""

    def __init__(
        self,
        job: Job,
        vocabulary: Vocabulary,
        abort: Callable[[int | None], None],
        events: list[Piece | Ended],
    ) -> None:
        self._job = job
        self._abort = abort
        self._events = events
        self._covered = job.output_covered
        self._withheld: deque[Tokens] = deque()  # at most what the engine may generate for the job
        self._aborted = False
        self._error: str | None = None
        self._choices = [self._choice(vocabulary, number) for number in range(choice_count(job))]
        self._count = sum([choice.count for choice in self._choices])

    @property
    def open(self) -> bool:
        return not all(choice.ended for choice in self._choices)

    @property
    def stopped(self) -> list[int]:
        """The choices that had reached a stop string in an earlier attempt, or have now."""
        return [number for number, choice in enumerate(self._choices) if choice.text.stopped]

    def tokens(self, tokens: Tokens) -> None:
        if not self._covered or (not self._withheld and len(tokens.token_ids) <= self._covered - self._count):
            self._put_out(tokens)
            return
        self._withheld.append(tokens)
        self._release()

    def cover(self, output_tokens: int) -> None:
        if self._covered:
            self._covered = max(self._covered, output_tokens)
            self._release()

    def drop(self) -> None:
        """It was aborted: nothing more will be covered."""
        self._aborted = True
        self._release()

    def end(self, end: ChoiceEnd) -> None:
        choice = self._choices[end.choice]
        if choice.ended:
            return
        choice.end = end
        if end.reason == "error" and self._error is None:
            self._error = end.error or ENGINE_FAILED
            self._abort(None)
            self.drop()
        self._close()

    def _choice(self, vocabulary: Vocabulary, number: int) -> _Choice:
        sampling = self._job.sampling
        if sampling is None:
            return _Choice(ChoiceText(vocabulary))
        text = ChoiceText(vocabulary, sampling.stop, sampling.min_tokens, continues=self._job.continues)
        choice = _Choice(text)
        before = emitted(self._job, number)
        if before:
            shown, choice.count = choice.text.push(before)
            choice.finish_reason = "stop" if choice.text.stopped else None
            choice.shown.append(shown)
        return choice

    def _release(self) -> None:
        """Put out what is covered. Choices share what is covered in the order in which their tokens came."""
        while self._withheld and (room := self._covered - self._count) > 0:
            for tokens in self._next(room):
                self._put_out(tokens)
        if self._aborted:
            for tokens in self._withheld:
                self._choices[tokens.choice].cut = True
            self._withheld.clear()
        self._close()

    def _next(self, room: int) -> list[Tokens]:
        """Up to `room` of the withheld tokens, in one piece for each choice."""
        taken: dict[int, Tokens] = {}
        while self._withheld and room:
            tokens = self._withheld.popleft()
            if self._choices[tokens.choice].finish_reason is not None:
                continue
            if len(tokens.token_ids) > room:
                self._withheld.appendleft(_part(tokens, slice(room, None)))
                tokens = _part(tokens, slice(room))
            room -= len(tokens.token_ids)
            before = taken.get(tokens.choice)
            taken[tokens.choice] = tokens if before is None else _joined(before, tokens)
        return list(taken.values())

    def _put_out(self, tokens: Tokens) -> None:
        choice = self._choices[tokens.choice]
        if choice.finish_reason is not None:  # computed after the stop string, before the engine heard of it
            return
        text, used = choice.text.push(tokens.token_ids)
        if used < len(tokens.token_ids):
            tokens = _part(tokens, slice(used))
        self._tell(tokens, text)
        choice.count += used
        self._count += used
        if choice.text.stopped:
            choice.finish_reason = "stop"
            self._abort(tokens.choice)

    def _tell(self, tokens: Tokens, text: str) -> None:
        job, choice = self._job, self._choices[tokens.choice]
        self._events.append(
            Piece(job.request_id, job.attempt, tokens.choice, choice.count, tokens.token_ids, text, tokens.logprobs)
        )
        if job.keep_answer:
            choice.shown.append(text)
            if job.sampling is not None and job.sampling.logprobs is not None:
                choice.token_ids += tokens.token_ids
                choice.logprobs += tokens.logprobs

    def _close(self) -> None:
        """End the choices of which nothing is withheld, and with the last of them the request."""
        waiting = {tokens.choice for tokens in self._withheld}
        closed = False
        for number, choice in enumerate(self._choices):
            if choice.end is None or choice.ended or (number in waiting and choice.finish_reason is None):
                continue
            closed = choice.ended = True
            rest = choice.text.flush()
            if rest:
                self._tell(Tokens(self._job.request_id, number, ()), rest)
            if choice.finish_reason is None:
                whole = choice.end.reason in {"stop", "length"} and not choice.cut
                choice.finish_reason = choice.end.reason if whole else "error"
        if closed and not self.open:
            self._events.append(self._ended())

    def _ended(self) -> Ended:
        """`cached_tokens` is what no choice had to compute: the prompt is billed once."""
        ends: Sequence[ChoiceEnd | None] = [choice.end for choice in self._choices]
        usage = Usage(
            prompt_tokens=self._job.prompt_tokens,
            completion_tokens=self._count,
            cached_tokens=min([end.cached_tokens for end in ends if end is not None]),
        )
        answers = [
            Answer("".join(choice.shown), tuple(choice.token_ids), tuple(choice.logprobs)) for choice in self._choices
        ]
        end = End(
            request_id=self._job.request_id,
            attempt=self._job.attempt,
            finish_reasons=tuple([choice.finish_reason or "error" for choice in self._choices]),
            usage=usage,
            error=self._error,
            answers=tuple(answers) if self._job.keep_answer else (),
        )
        return Ended(end, failed=self._error is not None)


def _part(tokens: Tokens, part: slice) -> Tokens:
    return replace(tokens, token_ids=tokens.token_ids[part], logprobs=tokens.logprobs[part])


def _joined(first: Tokens, then: Tokens) -> Tokens:
    return replace(first, token_ids=first.token_ids + then.token_ids, logprobs=first.logprobs + then.logprobs)
