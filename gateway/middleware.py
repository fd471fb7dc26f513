"""The outermost ASGI layer: every request gets an id, bounds on its body, a rendered error, and is counted once."""

from dataclasses import dataclass

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.clock import Clock
from core.errors import BODY_TOO_LARGE, INTERNAL, UNSUPPORTED_MEDIA, PlatformError
from core.ids import IdSource
from gateway.errors import INTERNAL_MESSAGE, Rendered, render
from gateway.headers import request_id_headers
from gateway.metrics import GatewayMetrics
from gateway.replies import ClientLeft

CALL = "tramontane.call"
NO_SNIFF = (b"x-content-type-options", b"nosniff")
WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
METHODS = WITH_BODY | {"GET", "HEAD", "OPTIONS"}
OTHER = "other"


@dataclass(slots=True)
class Call:
    """One request on its way. `request_id` may be replaced by the id of the job it becomes, before the answer."""

    request_id: str
    started_s: float
    status: int = 0


def call_of(scope: Scope) -> Call:
    call = scope[CALL]
    assert isinstance(call, Call)
    return call


def route_of(scope: Scope) -> str:
    """The path as it was registered, so that metrics have few labels."""
    return getattr(scope.get("route"), "path", OTHER)


def method_label(method: str) -> str:
    return method if method in METHODS else OTHER


class Edge:
    def __init__(
        self,
        app: ASGIApp,
        *,
        cell: str,
        clock: Clock,
        ids: IdSource,
        body_bytes_max: int,
        metrics: GatewayMetrics,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._app = app
        self._cell = cell
        self._clock = clock
        self._ids = ids
        self._body_bytes_max = body_bytes_max
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = Call(self._ids.request_id(self._cell), self._clock.monotonic_s())
        method = scope["method"]
        # The server leaves the body out of an answer to HEAD: it looks at its own copy.
        inner = {**scope, "method": "GET"} if method == "HEAD" else scope
        inner[CALL] = call

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *request_id_headers(call.request_id), NO_SNIFF]
            await send(message)

        try:
            if method in WITH_BODY:
                receive = BoundedBody(scope, receive, self._body_bytes_max)
            await self._app(inner, receive, answer)
        except PlatformError as error:
            if error.refusal is not None:
                self._metrics.refused(error.refusal.rule)
            await self._refuse(call, render(error, call.request_id), answer)
        except ClientLeft:
            self._metrics.client_left(route_of(inner))
        except Exception:  # noqa: BLE001 - the last stop: logged once, told to the caller without its insides
            self._log.exception("request_failed", request_id=call.request_id, path=route_of(inner), method=method)
            await self._refuse(call, render(PlatformError(INTERNAL, INTERNAL_MESSAGE), call.request_id), answer)
        finally:
            seconds = self._clock.monotonic_s() - call.started_s
            self._metrics.answered(route_of(inner), method_label(method), call.status, seconds)

    async def _refuse(self, call: Call, rendered: Rendered, send: Send) -> None:
        """Nothing can be added to an answer that has begun; the server then cuts the connection."""
        if call.status == 0:
            await send_rendered(rendered, send)


async def send_rendered(rendered: Rendered, send: Send) -> None:
    await send({"type": "http.response.start", "status": rendered.status, "headers": rendered.headers})
    await send({"type": "http.response.body", "body": rendered.body})


class BoundedBody:
    """A `receive` that ends a body which is too large. How long it may take to arrive is the protocol's business.

    A declared length that is too large is refused before anything is read; what the caller still sends is then dropped
    by the server, so that the refusal arrives and the connection is not reset.
    """

    __slots__ = ("_bytes_left", "_bytes_max", "_receive")

    def __init__(self, scope: Scope, receive: Receive, bytes_max: int) -> None:
        declared = header(scope, b"content-length")
        if declared is not None and (not declared.isdigit() or len(declared) > 18 or int(declared) > bytes_max):
            raise _too_large(bytes_max)
        self._receive = receive
        self._bytes_left = self._bytes_max = bytes_max

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._bytes_left -= len(message.get("body", b""))
            if self._bytes_left < 0:
                raise _too_large(self._bytes_max)
        return message


def _too_large(bytes_max: int) -> PlatformError:
    return PlatformError(BODY_TOO_LARGE, f"The body is larger than {bytes_max} bytes.")


async def read_json(scope: Scope, receive: Receive) -> bytes:
    """The whole body of a request that says it is JSON, or does not say. Raises PlatformError."""
    kind = header(scope, b"content-type")
    if kind is not None and kind.partition(b";")[0].strip().lower() not in (b"application/json", b""):
        raise PlatformError(UNSUPPORTED_MEDIA, "Send the body as application/json.")
    encoding = header(scope, b"content-encoding")
    if encoding is not None and encoding.lower() not in (b"identity", b""):
        raise PlatformError(UNSUPPORTED_MEDIA, "Send the body without content-encoding.")
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        return body
    parts = []
    while message["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await receive()
    raise ClientLeft


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first value of this name; names are lower case in ASGI."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None
