"""The console's pages, answered by a process of their own: a gateway hands requests for them on over a Unix socket.

A page takes milliseconds of processor time, in which a gateway's other requests would wait for the interpreter.
"""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import httpx
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.services import Lifecycle

CONSOLE = "/console"
CONNECT_S_MAX = 2.0
SILENT_S_MAX = 120.0  # live parts and answers of models say something far more often
CONNECTIONS_MAX = 512
RETRY_S = 3
# RFC 9110, 7.6.1: of one connection; and what this process says itself.
OF_A_CONNECTION = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
ANSWERED_HERE = OF_A_CONNECTION | {b"date"}
ASKED_HERE = OF_A_CONNECTION | {b"x-forwarded-for", b"x-forwarded-proto", b"forwarded"}
WITH_BODY = frozenset({b"content-length", b"transfer-encoding"})
AWAY = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>Starting</title>"
    "<p>The console is starting. This page asks again by itself.</p>"
)

Header = tuple[bytes, bytes]


def is_for_console(path: str) -> bool:
    return path == CONSOLE or path.startswith(CONSOLE + "/")


class ConsoleRelay:
    """`socket` is where the console's process listens; who can open it is believed what it says of the caller."""

    def __init__(self, socket: Path, lifecycle: Lifecycle, log: structlog.stdlib.BoundLogger) -> None:
        self._lifecycle = lifecycle
        self._log = log
        limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX)
        timeout = httpx.Timeout(SILENT_S_MAX, connect=CONNECT_S_MAX, pool=CONNECT_S_MAX)
        transport = httpx.AsyncHTTPTransport(uds=str(socket), limits=limits)
        self._client = httpx.AsyncClient(transport=transport, timeout=timeout, trust_env=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            answer = await self._client.send(self._asked(request), stream=True)
        except httpx.TransportError as error:
            self._log.warning("console_away", error=type(error).__name__)
            await _away()(scope, receive, send)
            return
        except ClientDisconnect:
            return
        try:
            response = StreamingResponse(self._body(answer, request.method), status_code=answer.status_code)
            response.raw_headers = list(_without(answer.headers.raw, ANSWERED_HERE))
            await response(scope, receive, send)
        finally:
            await answer.aclose()

    async def close(self) -> None:
        await self._client.aclose()

    def _asked(self, request: Request) -> httpx.Request:
        """The same request, with the caller's address and scheme as this process knows them."""
        headers: list[Header] = list(_without(request.headers.raw, ASKED_HERE))
        if request.client is not None:
            headers.append((b"x-forwarded-for", request.client.host.encode("latin-1")))
        headers.append((b"x-forwarded-proto", request.url.scheme.encode("latin-1")))
        target = request.scope["raw_path"]
        if request.scope["query_string"]:
            target = b"%b?%b" % (target, request.scope["query_string"])
        has_body = any(name in WITH_BODY for name, _ in request.headers.raw)
        return httpx.Request(
            request.method,
            "http://console",
            headers=headers,
            content=request.stream() if has_body else None,
            extensions={"target": target},
        )

    async def _body(self, answer: httpx.Response, method: str) -> AsyncIterator[bytes]:
        """As it comes. A page that is live ends when this process does: its browser connects to another."""
        try:
            async for piece in answer.aiter_raw():
                yield piece
                if self._lifecycle.draining and method == "GET":
                    return
        except httpx.TransportError as error:
            # Nothing can be added to an answer that has begun; the server cuts the connection.
            self._log.warning("console_broke_off", error=type(error).__name__)
            raise


def _without(headers: Iterable[Header], names: frozenset[bytes]) -> Iterable[Header]:
    return ((name.lower(), value) for name, value in headers if name.lower() not in names)


def _away() -> Response:
    headers = {"retry-after": str(RETRY_S), "refresh": str(RETRY_S), "cache-control": "no-store"}
    return HTMLResponse(AWAY, status_code=503, headers={**headers, "content-security-policy": "default-src 'none'"})
