"""The HTTP protocol of uvicorn, bounded where it is not: slow or endless heads, bodies nobody reads, stuck readers."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from core.errors import BAD_REQUEST, REQUEST_TIMEOUT, ErrorKind
from core.gathering import Gathering
from gateway.errors import flat

CONNECTION = "tramontane.connection"  # in the scope of each request
HEAD, BODY, WRITE = "head", "body", "write"
REFUSAL_HEAD = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """`discard_bytes_max`: of a body that was refused before it had arrived, so that the caller gets to read why."""

    head_bytes_max: int
    head_s_max: float
    body_s_max: float
    discard_bytes_max: int
    write_stall_s_max: float


def protocol_class(limits: ConnectionLimits) -> type[HttpToolsProtocol]:
    """The server wants a class and makes its instances itself."""

    class BoundedProtocol(_Bounded):
        connection_limits = limits

    return BoundedProtocol


class GatheredTransport(asyncio.Transport):
    """What uvicorn asks of a transport, with the head and the body of an answer in one write."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._outgoing = Gathering(transport)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._outgoing.write(data)

    def close(self) -> None:
        self._outgoing.flush()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)


class _Bounded(HttpToolsProtocol):
    connection_limits: ConnectionLimits

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_bytes = 0
        self._in_head = True
        self._discarded_bytes = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._lost = False
        self._when_lost: Callable[[], None] | None = None

    def when_lost(self, call: Callable[[], None] | None) -> None:
        """What to call once when the caller is gone, at once if he is already; None forgets it. One request at a time
        is answered on a connection, so one such call is enough, and it costs no task that waits.
        """
        self._when_lost = call
        if self._lost and call is not None:
            call()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # narrower, as in uvicorn
        super().connection_made(GatheredTransport(transport))
        self._arm(HEAD, self.connection_limits.head_s_max, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        super().connection_lost(exc)
        self._lost = True
        if self._when_lost is not None:
            self._when_lost()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            if self._head_bytes > self.connection_limits.head_bytes_max:
                self.send_400_response("The head of the request is too large.")
            elif self._head_bytes and HEAD not in self._timers:
                self._arm(HEAD, self.connection_limits.head_s_max, self.transport.abort)
            return
        if BODY not in self._timers:
            self._arm(BODY, self.connection_limits.body_s_max, self._body_late)
        if self.cycle.response_complete:
            self._discard(len(data))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._disarm(HEAD)
        self.scope[CONNECTION] = self  # type: ignore[literal-required]  # ours, beside ASGI's own
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        self._discarded_bytes = 0
        self._disarm(BODY)
        super().on_message_complete()
        if self.cycle.response_complete:  # uvicorn has disarmed it when the rest of this body came
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def send_400_response(self, msg: str) -> None:
        """What cannot be read as HTTP, in the shape of every other error."""
        self._refuse(BAD_REQUEST, msg)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._arm(WRITE, self.connection_limits.write_stall_s_max, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._disarm(WRITE)

    def _discard(self, count: int) -> None:
        """The answer is out, the body still comes: reading on lets the answer arrive, but not for ever."""
        self._discarded_bytes += count
        if self._discarded_bytes > self.connection_limits.discard_bytes_max:
            self.transport.abort()

    def _body_late(self) -> None:
        if self.cycle.response_started:
            self.transport.abort()
        else:
            self._refuse(REQUEST_TIMEOUT, f"The body did not arrive within {self.connection_limits.body_s_max:g} s.")

    def _refuse(self, kind: ErrorKind, message: str) -> None:
        """Past the application, in the shape of every other error; it only sees that the caller is gone."""
        body = orjson.dumps(flat(kind, message, None))
        phrase = HTTPStatus(kind.status).phrase.encode("ascii")
        self.transport.write(REFUSAL_HEAD % (kind.status, phrase, len(body)) + body)
        self.transport.close()

    def _arm(self, name: str, seconds: float, then: Callable[[], None]) -> None:
        self._disarm(name)
        self._timers[name] = self.loop.call_later(seconds, then)

    def _disarm(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
