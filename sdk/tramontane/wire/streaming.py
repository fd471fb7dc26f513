"""A streamed answer: from bytes to chunks, with its clocks, and folded into what a plain answer would have been."""

from __future__ import annotations

import json
from typing import Any, Awaitable, Callable, Dict, List, Optional

from tramontane.errors import ConnectionLost, StreamInterrupted, TimedOut, TramontaneError, UnexpectedAnswer
from tramontane.types import (
    AssistantMessage,
    ChatChunk,
    ChatCompletion,
    Choice,
    ChunkChoice,
    Extension,
    Logprobs,
    TokenLogprob,
    ToolCall,
    Usage,
)
from tramontane.wire.config import Timeouts
from tramontane.wire.decode import Meta, decode, with_meta
from tramontane.wire.sse import EventDecoder

DONE = "[DONE]"
More = Callable[[], Optional[List[ChatChunk]]]
AsyncMore = Callable[[], Awaitable[Optional[List[ChatChunk]]]]


class ChunkReader:
    """`done` after the stream's own end; `failure` is to be raised after the chunks before it were handed out."""

    def __init__(self, meta: Meta, timeouts: Timeouts, began_s: float, ends_s: float) -> None:
        self.meta = meta
        self.folded = Folded()
        self.done = False
        self.failure: Optional[TramontaneError] = None
        self._timeouts = timeouts
        self._first_by_s = began_s + timeouts.first_token_s
        self._ends_s = ends_s
        self._has_text = False
        self._events = EventDecoder()

    def feed(self, raw: bytes, now_s: float) -> List[ChatChunk]:
        """Nothing fed: no more comes."""
        chunks: List[ChatChunk] = []
        if not raw and not self.done:
            self.failure = self.broken("the stream ended before its end")
        try:
            for data in self._events.feed(raw):
                if data == DONE:
                    self.done = True
                    break
                chunks.append(self._chunk(data))
                if self.failure is not None:
                    break
        except TramontaneError as error:
            self.failure = error
        if self.failure is None and not self.done:
            self.failure = self._late(now_s)
        return chunks

    def told(self, error: TramontaneError) -> TramontaneError:
        """What a failure of the connection is in the middle of this answer."""
        if isinstance(error, ConnectionLost):
            return self.broken(f"the connection broke in the middle of the answer: {error}")
        return TimedOut(error.phase, error.limit_s, self.meta.request_id) if isinstance(error, TimedOut) else error

    def broken(self, reason: str) -> StreamInterrupted:
        return StreamInterrupted(reason, request_id=self.meta.request_id, text=self.folded.text)

    def completion(self) -> ChatCompletion:
        """What came so far, as an answer that was not streamed."""
        return with_meta(self.folded.completion(), self.meta)

    def _chunk(self, data: str) -> ChatChunk:
        try:
            body = json.loads(data)
        except ValueError:
            body = None
        if isinstance(body, dict) and "choices" not in body and ("error" in body or body.get("object") == "error"):
            raise self.broken(_sentence(body))
        if not isinstance(body, dict):
            raise UnexpectedAnswer("an event of the stream is no JSON object")
        chunk = decode(ChatChunk, body, "chunk")
        self.folded.add(chunk)
        self._has_text = self._has_text or self.folded.has_text
        told = chunk.x_tramontane.error if chunk.x_tramontane is not None else None
        if told is not None or any(choice.finish_reason == "error" for choice in chunk.choices):
            self._failed(told)
        return chunk

    def _failed(self, told: Optional[str]) -> None:
        """The sentence is on the last of several chunks that say error."""
        if told is not None or self.folded.all_finished:
            self.failure = self.broken(told or "the platform failed in the middle of the answer")

    def _late(self, now_s: float) -> Optional[TimedOut]:
        if now_s >= self._ends_s:
            return TimedOut("total", self._timeouts.total_s, self.meta.request_id)
        if not self._has_text and now_s >= self._first_by_s:
            return TimedOut("first_token", self._timeouts.first_token_s, self.meta.request_id)
        return None


class Folded:
    """Adds chunks up."""

    def __init__(self) -> None:
        self._first: Optional[ChatChunk] = None
        self._choices: Dict[int, _Choice] = {}
        self._usage: Optional[Usage] = None
        self._extension: Optional[Extension] = None

    def add(self, chunk: ChatChunk) -> None:
        self._first = self._first or chunk
        self._usage = chunk.usage or self._usage
        self._extension = chunk.x_tramontane or self._extension
        for choice in chunk.choices:
            self._choices.setdefault(choice.index, _Choice()).add(choice)

    @property
    def text(self) -> str:
        """Of the first choice."""
        return "".join(self._choices[0].texts) if 0 in self._choices else ""

    @property
    def has_text(self) -> bool:
        """Or calls, or an end."""
        return any(choice.texts or choice.calls or choice.finish_reason for choice in self._choices.values())

    @property
    def all_finished(self) -> bool:
        return all(choice.finish_reason for choice in self._choices.values())

    def completion(self) -> ChatCompletion:
        first = self._first
        if first is None:
            raise UnexpectedAnswer("the stream has not begun yet")
        choices = [self._choices[index].whole(index) for index in sorted(self._choices)]
        return ChatCompletion(
            first.id,
            first.model,
            choices,
            self._usage or Usage(0, 0),
            created=first.created,
            x_tramontane=self._extension,
        )


class _Choice:
    def __init__(self) -> None:
        self.texts: List[str] = []
        self.calls: List[ToolCall] = []
        self.finish_reason: Optional[str] = None
        self._logprobs: List[TokenLogprob] = []
        self._has_logprobs = False

    def add(self, choice: ChunkChoice) -> None:
        if choice.delta.content:
            self.texts.append(choice.delta.content)
        self.calls += choice.delta.tool_calls or ()
        self.finish_reason = choice.finish_reason or self.finish_reason
        if choice.logprobs is not None:
            self._has_logprobs = True
            self._logprobs += choice.logprobs.content

    def whole(self, index: int) -> Choice:
        message = AssistantMessage(content="".join(self.texts), tool_calls=self.calls or None)
        return Choice(index, message, self.finish_reason, Logprobs(self._logprobs) if self._has_logprobs else None)


def as_they_are(chunks: List[ChatChunk]) -> List[ChatChunk]:
    return chunks


def texts_of(chunks: List[ChatChunk]) -> List[str]:
    """Of the first choice."""
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == 0]
    return [choice.delta.content for choice in choices if choice.delta.content]


def _sentence(body: Dict[str, Any]) -> str:
    error = body.get("error")
    said = error.get("message") if isinstance(error, dict) else error or body.get("message")
    return said if isinstance(said, str) else "the platform failed in the middle of the answer"
