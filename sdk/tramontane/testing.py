"""For tests of programs that use this package: a platform that answers what it was told to, and a clock that does not
wait.

    mock = MockTransport().chat("Hello").refuse(429, code="1300", retry_after_s=1)
    client = Tramontane(api_key="test", transport=mock, timing=InstantTiming())
"""

from __future__ import annotations

import base64
import json
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Any, AsyncIterator, Callable, Deque, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import httpx

from tramontane.timing import AsyncTiming, Timing

MODEL = "mock-model"
REQUEST_ID = "mock-request"
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
Answerer = Callable[[httpx.Request], httpx.Response]


@dataclass(frozen=True)
class MockRequest:
    """What was asked. `headers` is without the key."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    body: Any


class MockTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers in the order in which they were scripted, sync and async. `requests` is what was asked; `unused` how many
    answers were not needed. A request without an answer is an AssertionError.
    """

    def __init__(self) -> None:
        self.requests: List[MockRequest] = []
        self.bodies: List[MockBody] = []
        self._script: Deque[Answerer] = deque()

    @property
    def unused(self) -> int:
        return len(self._script)

    def chat(
        self,
        content: str = "",
        *,
        tool_calls: Sequence[Tuple[str, Mapping[str, Any]]] = (),
        finish_reason: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> MockTransport:
        """A whole answer: a text, or calls as (name, arguments)."""
        message = {"role": "assistant", "content": content, "tool_calls": _calls(tool_calls) or None, "prefix": False}
        reason = finish_reason or ("tool_calls" if tool_calls else "stop")
        choice = {"index": 0, "message": message, "finish_reason": reason}
        body = {"id": REQUEST_ID, "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice]}
        return self.json({**body, "usage": USAGE}, headers=headers)

    def stream(
        self,
        *texts: str,
        tool_calls: Sequence[Tuple[str, Mapping[str, Any]]] = (),
        error: Optional[str] = None,
        failure: Optional[BaseException] = None,
        complete: bool = True,
    ) -> MockTransport:
        """A streamed answer, each text in a chunk of its own. `error`: the platform fails in its middle; `failure`: the
        connection does; not `complete`: it just ends.
        """
        pieces: List[Any] = [_event({"role": "assistant", "content": ""}, None)]
        pieces += [_event({"content": text}, None) for text in texts]
        if failure is not None:
            pieces.append(failure)
        elif complete:
            reason = "error" if error is not None else "tool_calls" if tool_calls else "stop"
            last: Dict[str, Any] = {"content": ""}
            if tool_calls:
                last["tool_calls"] = _calls(tool_calls)
            extension = {} if error is None else {"x_tramontane": {"error": error}}
            pieces += [_event(last, reason, usage=USAGE, **extension), b"data: [DONE]\n\n"]
        return self.raw(pieces, headers={"content-type": "text/event-stream"})

    def embeddings(self, vector: Callable[[str], Sequence[float]]) -> MockTransport:
        """What `vector` makes of each text that is asked for."""

        def answer(request: httpx.Request) -> httpx.Response:
            asked = json.loads(request.content)
            made = [vector(text) for text in asked["input"]]
            data = [
                {"object": "embedding", "embedding": _packed(numbers), "index": index}
                for index, numbers in enumerate(made)
            ]
            body = {"id": REQUEST_ID, "object": "list", "model": asked["model"], "data": data, "usage": USAGE}
            return httpx.Response(200, json=body)

        return self.then(answer)

    def refuse(
        self,
        status: int,
        *,
        code: Optional[str] = None,
        type: str = "",
        message: str = "refused",
        retry_after_s: Optional[float] = None,
        refused_by: Optional[Mapping[str, Any]] = None,
    ) -> MockTransport:
        """An error. `refused_by`: rule, scope, limit, remaining, retry_after_ms."""
        body: Dict[str, Any] = {"object": "error", "message": message, "type": type, "param": None, "code": code}
        if refused_by is not None:
            body["x_tramontane"] = {"refused_by": dict(refused_by)}
        headers = {} if retry_after_s is None else {"retry-after": f"{retry_after_s:g}"}
        return self.json(body, status=status, headers=headers)

    def fail(self, failure: Exception) -> MockTransport:
        """The connection fails: raises it, such as httpx.ConnectError("refused")."""

        def answer(_request: httpx.Request) -> httpx.Response:
            raise failure

        return self.then(answer)

    def json(self, body: Any, *, status: int = 200, headers: Optional[Mapping[str, str]] = None) -> MockTransport:
        """Any answer; None: without a body."""
        raw = b"" if body is None else json.dumps(body).encode()
        known = {"content-type": "application/json", "mistral-correlation-id": REQUEST_ID}
        return self.raw([raw] if raw else [], status=status, headers={**known, **(headers or {})})

    def raw(
        self, pieces: Sequence[Any], *, status: int = 200, headers: Optional[Mapping[str, str]] = None
    ) -> MockTransport:
        """Bytes as they come, or an exception in their midst."""

        def answer(_request: httpx.Request) -> httpx.Response:
            body = MockBody(pieces)
            self.bodies.append(body)
            known = {"mistral-correlation-id": REQUEST_ID}
            return httpx.Response(status, headers={**known, **(headers or {})}, stream=body)

        return self.then(answer)

    def then(self, answer: Answerer) -> MockTransport:
        """An answer made from the request."""
        self._script.append(answer)
        return self

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        return self._answer(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return self._answer(request)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        headers = {name: value for name, value in request.headers.items() if name != "authorization"}
        body = json.loads(request.content) if request.content else None
        url = request.url
        self.requests.append(MockRequest(request.method, url.path, dict(url.params), headers, body))
        if not self._script:
            raise AssertionError(f"no answer is scripted for {request.method} {url.path}")
        return self._script.popleft()(request)


class MockBody(httpx.SyncByteStream, httpx.AsyncByteStream):
    """`closed`: the client let go of it; `sent`: how many pieces it took before."""

    def __init__(self, pieces: Sequence[Any]) -> None:
        self.closed = False
        self.sent = 0
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, BaseException):
                raise piece
            self.sent += 1
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


class InstantTiming(Timing):
    """A clock that only sleep moves on; `slept` is what was slept, in seconds. Chance is always `chance_always`."""

    def __init__(self, chance_always: float = 1.0) -> None:
        self.slept: List[float] = []
        self._chance = chance_always

    def now_s(self) -> float:
        return sum(self.slept)

    def chance(self) -> float:
        return self._chance

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class AsyncInstantTiming(AsyncTiming):
    """The same for AsyncTramontane."""

    def __init__(self, chance_always: float = 1.0) -> None:
        self.slept: List[float] = []
        self._chance = chance_always

    def now_s(self) -> float:
        return sum(self.slept)

    def chance(self) -> float:
        return self._chance

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def _calls(calls: Sequence[Tuple[str, Mapping[str, Any]]]) -> List[Dict[str, Any]]:
    return [
        {
            "id": f"mockcall{index % 10}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
            "index": index,
        }
        for index, (name, arguments) in enumerate(calls)
    ]


def _event(delta: Mapping[str, Any], finish_reason: Optional[str], **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    body = {"id": REQUEST_ID, "object": "chat.completion.chunk", "created": 0, "model": MODEL, "choices": [choice]}
    return b"data: " + json.dumps({**body, **more}).encode() + b"\n\n"


def _packed(numbers: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode("ascii")
