"""From a conversation to its caller: a stream sent as it comes, or the same events folded into one body."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import Send

from core.clock import Clock
from core.errors import PlatformError
from core.ids import made_ms
from core.tokens import ChatTokenizer
from core.wire import Usage
from gateway.headers import (
    EVENT_STREAM_TYPE,
    JSON_TYPE,
    REPLAYED,
    RawHeaders,
    admitted_headers,
    cost_header,
    ignored_header,
    overhead_header,
    query_cost_headers,
)
from gateway.logprobs import render_logprobs
from gateway.metrics import GatewayMetrics
from gateway.replies import ClientLeft, Delta, Finished, Folded, Waiting
from gateway.responses import chat_body
from gateway.routes.metered import Exchanged
from gateway.sse import Calls, ChunkWriter, waiting_comment
from gateway.tool_calls import ToolHold, call_entries

NO_CACHE = (b"cache-control", b"no-cache")
NO_BUFFERING = (b"x-accel-buffering", b"no")  # else nginx holds a stream back
HELD_COMMENT_S = 10.0


@dataclass(frozen=True, slots=True)
class Relay:
    """What answers of one tier need. `model` is the name that the caller used. `has_tools`: the request named tools,
    so that an answer may be calls. `tokenizer`: log probabilities were asked for. `prefix`: the caller's own beginning
    of the answer, told again in front of it; nobody generated it.
    """

    tier: str
    model: str
    choices: int
    clock: Clock
    metrics: GatewayMetrics
    has_tools: bool = False
    tokenizer: ChatTokenizer | None = None
    prefix: str = ""

    async def chat(self, exchanged: Exchanged, *, stream: bool) -> None:
        """Answer a completion, streamed or as one body."""
        if stream:
            await self.stream(exchanged)
        else:
            await self.fold(exchanged, lambda folded: self._body(exchanged, folded))

    async def fold(self, exchanged: Exchanged, body: Callable[[Folded], bytes]) -> None:
        """Wait for the whole answer and send it as one JSON body. Raises PlatformError as long as nothing is sent."""
        reply = exchanged.conversation
        with leaving_noticed(exchanged):
            folded = await reply.fold()
        folded_s = self.clock.monotonic_s()
        raw = body(folded)
        overhead_s = exchanged.opened_s - exchanged.call.started_s + self.clock.monotonic_s() - folded_s
        usage = folded.usage
        headers = [
            (b"content-type", JSON_TYPE),
            (b"content-length", b"%d" % len(raw)),
            *_known_headers(exchanged),
            *query_cost_headers(usage.prompt_tokens + usage.completion_tokens),
            cost_header(folded.cost_nano),
            overhead_header(overhead_s),
        ]
        await exchanged.send({"type": "http.response.start", "status": 200, "headers": headers})
        await exchanged.send({"type": "http.response.body", "body": raw})
        if reply.admitted is not None:
            self.metrics.finished(self.tier, usage, overhead_s)

    async def stream(self, exchanged: Exchanged) -> None:
        """Headers go out with the first event, so that an early failure keeps its status. After that a failure is
        told on the last chunk.
        """
        request_id = exchanged.conversation.request_id
        writer = ChunkWriter(request_id, made_ms(request_id) // 1_000, self.model)
        outlet = _Outlet(exchanged.send, stream_headers(exchanged))
        self.metrics.stream_opened()
        try:
            with leaving_noticed(exchanged):
                await self._relay(exchanged, writer, outlet)
        except PlatformError as error:
            if not outlet.opened:
                raise
            reasons = ("error",) * self.choices
            await outlet.send(writer.end(reasons, Usage(), error=error.message), more=False)
        finally:
            self.metrics.stream_closed()

    async def _relay(self, exchanged: Exchanged, writer: ChunkWriter, outlet: "_Outlet") -> None:
        reply = exchanged.conversation
        overhead_s = exchanged.opened_s - exchanged.call.started_s
        begun = False
        speech = _Speech(self, exchanged, writer, outlet)
        say = speech.weigh if self.has_tools else speech.say
        async for event in reply.events():
            if not begun:
                begun = True
                self.metrics.started(self.tier, self.clock.monotonic_s() - exchanged.call.started_s)
            if isinstance(event, Delta):
                await say(event)
            elif isinstance(event, Waiting):
                await outlet.send(waiting_comment(event.queue_position, event.queue_wait_ms))
            else:
                await speech.end(event)
                if reply.admitted is not None:
                    self.metrics.finished(self.tier, event.usage, overhead_s)
                return
        raise ClientLeft

    def _body(self, exchanged: Exchanged, folded: Folded) -> bytes:
        return chat_body(
            request_id=exchanged.conversation.request_id,
            model=self.model,
            folded=folded,
            has_tools=self.has_tools,
            tokenizer=self.tokenizer,
            prefix=self.prefix,
        )


class _Speech:
    """One stream's text on its way out, each choice begun by its role; with tools, held back while it may be a call."""

    __slots__ = ("_exchanged", "_holds", "_outlet", "_relay", "_said_s", "_silent", "_writer")

    def __init__(self, relay: Relay, exchanged: Exchanged, writer: ChunkWriter, outlet: "_Outlet") -> None:
        self._relay = relay
        self._exchanged = exchanged
        self._writer = writer
        self._outlet = outlet
        self._silent = set(range(relay.choices))
        self._holds = {choice: ToolHold(choice) for choice in self._silent if relay.has_tools}
        self._said_s = relay.clock.monotonic_s()

    async def say(self, delta: Delta) -> None:
        tokenizer = self._relay.tokenizer
        if tokenizer is None:
            chunk = self._writer.text(delta.choice, delta.text)
        else:
            rendered = render_logprobs(tokenizer, delta.token_ids, delta.logprobs)
            chunk = self._writer.marked(delta.choice, delta.text, rendered)
        if delta.choice in self._silent:
            self._silent.discard(delta.choice)
            chunk = self._opening(delta.choice) + chunk
        await self._outlet.send(chunk)
        self._exchanged.conversation.delivered(delta.choice, delta.token_count)

    async def weigh(self, delta: Delta) -> None:
        """Say what cannot be a call; of the rest, only that it is being worked on."""
        now_s = self._relay.clock.monotonic_s()
        free = self._holds[delta.choice].put(delta)
        if free is not None:
            self._said_s = now_s
            await self.say(free)
        elif now_s - self._said_s >= HELD_COMMENT_S:  # the conversation believes that it is being told
            self._said_s = now_s
            await self._outlet.send(waiting_comment(-1, 0))

    async def end(self, event: Finished) -> None:
        """A choice that had no text at all still gets its first chunk."""
        calls = await self._calls(event)
        roles = b"".join([self._opening(choice) for choice in sorted(self._silent)])
        last = self._writer.end(
            event.finish_reasons, event.usage, ended_by=event.ended_by, error=event.error, calls=calls
        )
        await self._outlet.send(roles + last, more=False)

    def _opening(self, choice: int) -> bytes:
        role = self._writer.role(choice)
        return role + self._writer.text(choice, self._relay.prefix) if self._relay.prefix else role

    async def _calls(self, event: Finished) -> Mapping[int, Calls]:
        """Of choices that ended well; what was held and is no call goes out as text."""
        found: dict[int, Calls] = {}
        tokenizer = self._relay.tokenizer
        for choice, hold in self._holds.items():
            if event.finish_reasons[choice] == "error":
                continue
            calls = hold.calls()
            if calls is not None:
                entries = call_entries(self._exchanged.conversation.request_id, choice, calls)
                rendered = None if tokenizer is None else render_logprobs(tokenizer, *hold.logprobs)
                found[choice] = Calls(entries, rendered)
            elif (rest := hold.release()) is not None:
                await self.say(rest)
        return found


class _Outlet:
    """Sends headers with the first bytes of the body."""

    __slots__ = ("_headers", "_send", "opened")

    def __init__(self, send: Send, headers: RawHeaders) -> None:
        self._send = send
        self._headers = headers
        self.opened = False

    async def send(self, body: bytes, *, more: bool = True) -> None:
        if not self.opened:
            self.opened = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def stream_headers(exchanged: Exchanged) -> RawHeaders:
    return [
        (b"content-type", EVENT_STREAM_TYPE),
        NO_CACHE,
        NO_BUFFERING,
        *_known_headers(exchanged),
        overhead_header(exchanged.opened_s - exchanged.call.started_s),
    ]


def _known_headers(exchanged: Exchanged) -> RawHeaders:
    """What is known before the answer."""
    admitted = exchanged.conversation.admitted
    headers = [REPLAYED] if admitted is None else admitted_headers(admitted)
    if exchanged.ignored:
        headers.append(ignored_header(exchanged.ignored))
    return headers


@contextmanager
def leaving_noticed(exchanged: Exchanged) -> Iterator[None]:
    """Abandon the conversation as soon as the server says that the connection is gone: its events then end."""
    exchanged.connection.when_lost(exchanged.conversation.leave)
    try:
        yield
    finally:
        exchanged.connection.when_lost(None)
