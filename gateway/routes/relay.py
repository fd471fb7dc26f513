"""From a conversation to its caller: a stream sent as it comes, or the same events folded into one body."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import Send

from core.clock import Clock
from core.errors import PlatformError
from core.wire import Usage
from gateway.headers import (
    EVENT_STREAM_TYPE,
    JSON_TYPE,
    RawHeaders,
    cost_header,
    limit_headers,
    overhead_header,
    query_cost_headers,
    queue_header,
)
from gateway.metrics import GatewayMetrics
from gateway.replies import ClientLeft, Delta, Finished, Folded, Waiting
from gateway.routes.metered import Exchanged
from gateway.sse import ChunkWriter, waiting_comment

NO_CACHE = (b"cache-control", b"no-cache")
NO_BUFFERING = (b"x-accel-buffering", b"no")  # else nginx holds a stream back


@dataclass(frozen=True, slots=True)
class Relay:
    """What answers of one tier need. `model` is the name that the caller used."""

    tier: str
    model: str
    choices: int
    clock: Clock
    metrics: GatewayMetrics

    async def fold(self, exchanged: Exchanged, body: Callable[[Folded], bytes]) -> None:
        """Wait for the whole answer and send it as one JSON body. Raises PlatformError as long as nothing is sent."""
        conversation = exchanged.conversation
        with leaving_noticed(exchanged):
            folded = await conversation.fold()
        folded_s = self.clock.monotonic_s()
        raw = body(folded)
        overhead_s = exchanged.opened_s - exchanged.call.started_s + self.clock.monotonic_s() - folded_s
        usage = folded.usage
        headers = [
            (b"content-type", JSON_TYPE),
            (b"content-length", b"%d" % len(raw)),
            *limit_headers(conversation.admitted.rules),
            *query_cost_headers(usage.prompt_tokens + usage.completion_tokens),
            cost_header(folded.cost_nano),
            queue_header(conversation.admitted.queue_wait_ms),
            overhead_header(overhead_s),
        ]
        await exchanged.send({"type": "http.response.start", "status": 200, "headers": headers})
        await exchanged.send({"type": "http.response.body", "body": raw})
        self.metrics.finished(self.tier, usage, overhead_s)

    async def stream(self, exchanged: Exchanged) -> None:
        """Headers go out with the first event, so that an early failure keeps its status. After that a failure is
        told on the last chunk.
        """
        admitted = exchanged.conversation.admitted
        writer = ChunkWriter(exchanged.conversation.request_id, admitted.admitted_ms // 1_000, self.model)
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
        conversation = exchanged.conversation
        overhead_s = exchanged.opened_s - exchanged.call.started_s
        silent = set(range(self.choices))
        async for event in conversation.events():
            if not outlet.opened:
                self.metrics.started(self.tier, self.clock.monotonic_s() - exchanged.call.started_s)
            if isinstance(event, Delta):
                chunk = writer.text(event.choice, event.text)
                if event.choice in silent:
                    silent.discard(event.choice)
                    chunk = writer.role(event.choice) + chunk
                await outlet.send(chunk)
                conversation.delivered(event.choice, event.token_count)
            elif isinstance(event, Waiting):
                await outlet.send(waiting_comment(event.queue_position, event.queue_wait_ms))
            else:
                await outlet.send(_last(writer, silent, event), more=False)
                self.metrics.finished(self.tier, event.usage, overhead_s)
                return
        raise ClientLeft


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
    admitted = exchanged.conversation.admitted
    return [
        (b"content-type", EVENT_STREAM_TYPE),
        NO_CACHE,
        NO_BUFFERING,
        *limit_headers(admitted.rules),
        queue_header(admitted.queue_wait_ms),
        overhead_header(exchanged.opened_s - exchanged.call.started_s),
    ]


def _last(writer: ChunkWriter, silent: set[int], event: Finished) -> bytes:
    """A choice that had no text at all still gets its first chunk."""
    roles = b"".join(writer.role(choice) for choice in sorted(silent))
    return roles + writer.end(event.finish_reasons, event.usage, ended_by=event.ended_by, error=event.error)


@contextmanager
def leaving_noticed(exchanged: Exchanged) -> Iterator[None]:
    """Abandon the conversation as soon as the server says that the connection is gone: its events then end."""
    exchanged.connection.when_lost(exchanged.conversation.leave)
    try:
        yield
    finally:
        exchanged.connection.when_lost(None)
