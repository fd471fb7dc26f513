"""Chat chunks as server-sent events. The constant part of a request's chunks is built once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson

from core.wire import Usage
from gateway.errors import EXTENSION
from gateway.logprobs import Rendered
from gateway.responses import usage_body

DONE = b"data: [DONE]\n\n"
_CLOSE = b"}\n\n"


@dataclass(frozen=True, slots=True)
class Calls:
    """The tool calls of one choice as JSON values, with the log probabilities of their tokens if asked for."""

    entries: Sequence[Mapping[str, Any]]
    logprobs: Rendered | None = None


NO_CALLS: Mapping[int, Calls] = MappingProxyType({})


def waiting_comment(queue_position: int, queue_wait_ms: int) -> bytes:
    """For a person who watches, and for proxies that close what is silent; every client skips comments."""
    if queue_position < 0:
        return b": working\n\n"
    if queue_wait_ms <= 0:
        return b": queued\n\n"
    return b": queued, about %d s\n\n" % -(-queue_wait_ms // 1_000)


class ChunkWriter:
    """Lines of `data: ` with the space that old clients insist on; each chunk has `id`, `model` and one choice."""

    def __init__(self, request_id: str, created_s: int, model: str) -> None:
        head = orjson.dumps({"id": request_id, "object": "chat.completion.chunk", "created": created_s, "model": model})
        self._head = b"data: " + head[:-1] + b',"choices":[{"index":'

    def role(self, choice: int) -> bytes:
        return b'%b%d,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n' % (self._head, choice)

    def text(self, choice: int, text: str) -> bytes:
        return b'%b%d,"delta":{"content":%b},"finish_reason":null}]}\n\n' % (self._head, choice, orjson.dumps(text))

    def marked(self, choice: int, text: str, logprobs: Rendered) -> bytes:
        """Text with its log probabilities."""
        return self._chunk(choice, {"delta": {"content": text}, "finish_reason": None, "logprobs": logprobs})

    def end(
        self,
        finish_reasons: Sequence[str],
        usage: Usage,
        *,
        ended_by: str | None = None,
        error: str | None = None,
        calls: Mapping[int, Calls] = NO_CALLS,
    ) -> bytes:
        """One finish chunk for each choice, usage on the very last, and the sentinel. `calls` by choice: all of them
        whole, on its one chunk.
        """
        *others, last = (
            self._call(choice, calls[choice]) if choice in calls else self._finish(choice, reason)
            for choice, reason in enumerate(finish_reasons)
        )
        tail: dict[str, Any] = {"usage": usage_body(usage)}
        extension = {name: word for name, word in (("ended_by", ended_by), ("error", error)) if word is not None}
        if extension:
            tail[EXTENSION] = extension
        final = last.removesuffix(_CLOSE) + b"," + orjson.dumps(tail)[1:] + b"\n\n"
        return b"".join((*others, final, DONE))

    def _finish(self, choice: int, reason: str) -> bytes:
        return b'%b%d,"delta":{"content":""},"finish_reason":%b}]%b' % (
            self._head,
            choice,
            orjson.dumps(reason),
            _CLOSE,
        )

    def _call(self, choice: int, calls: Calls) -> bytes:
        entry: dict[str, Any] = {
            "delta": {"content": "", "tool_calls": calls.entries},
            "finish_reason": "tool_calls",
        }
        if calls.logprobs is not None:
            entry["logprobs"] = calls.logprobs
        return self._chunk(choice, entry)

    def _chunk(self, choice: int, entry: dict[str, Any]) -> bytes:
        return b"%b%d,%b]%b" % (self._head, choice, orjson.dumps(entry)[1:], _CLOSE)
