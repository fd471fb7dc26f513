"""The only way to register a route that makes tokens: whatever it answers with, it was admitted and will be settled."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from core.errors import UNAVAILABLE, PlatformError
from core.queue.base import Admission, Claim, Repeated
from gateway.claims import KEY_CHARS_MAX, claim_of
from gateway.middleware import Call, call_of, header, read_json
from gateway.principal import Principal
from gateway.protocol import CONNECTION
from gateway.replies import Reply
from gateway.routes.access import Caller, authenticate_quickly
from gateway.schemas.answers import ERROR_RESPONSES, ErrorBody, ValidationErrorBody
from gateway.schemas.mode import MODE_HEADER, Mode, mode_of
from gateway.schemas.openapi import body_of
from gateway.services import Services

INFERENCE = "inference"
MODE_HEADER_RAW = MODE_HEADER.encode("ascii")
UNPROCESSABLE = {
    "model": ValidationErrorBody | ErrorBody,
    "description": "A field is wrong, or the Idempotency-Key was used with another body.",
}
PARAMETERS = [
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Run once, whatever is sent again with this key and body within 24 hours.",
        "schema": {"type": "string", "minLength": 1, "maxLength": KEY_CHARS_MAX, "pattern": "^[ -~]+$"},
    },
    {
        "name": MODE_HEADER,
        "in": "header",
        "description": "How strictly the body is read; default: what the key's workspace says.",
        "schema": {"type": "string", "enum": [mode.value for mode in Mode]},
    },
]


class Connection(Protocol):
    def when_lost(self, call: Callable[[], None] | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A request with its answer on the way, and how to talk to its caller. `opened_s`: when it had been admitted,
    monotonic. `ignored` are the fields that were accepted and do nothing.
    """

    conversation: Reply
    call: Call
    opened_s: float
    connection: Connection
    send: Send
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """A checked request. `admit` says what to ask the queue for, and may be called again for a principal that was
    loaded anew; `answer` tells the caller what became of it. `ignored` are the fields that were accepted and do
    nothing. `large`: admit takes long, so call it in a thread. `tier`: the one asked for, by its own name.
    """

    admit: Callable[[Principal, Claim | None], Admission]
    answer: Callable[[Exchanged], Awaitable[None]]
    ignored: tuple[str, ...] = ()
    large: bool = False
    tier: str = ""


class MeteredRoute(APIRoute):
    """Order of checks: key (401, 403), body (415, 413, 408, 422), model and rules (400), admission (402, 429, 503).

    FastAPI documents it; the request itself goes around FastAPI's parsing and validation of answers.
    """

    def __init__(
        self,
        path: str,
        services: Services,
        prepare: Callable[[bytes, Mode], Ask],
        *,
        body: type[BaseModel],
        answers: dict[str, Any],
        operation_id: str,
        summary: str,
        description: str,
    ) -> None:
        super().__init__(
            path,
            _documented,
            methods=["POST"],
            tags=["inference"],
            operation_id=operation_id,
            summary=summary,
            description=description,
            responses={200: answers, **ERROR_RESPONSES, 422: UNPROCESSABLE},
            openapi_extra={**body_of(body), "parameters": PARAMETERS},
        )
        self._services = services
        self._prepare = prepare
        self.app = self.serve

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self
        services = self._services
        call = call_of(scope)
        caller: Caller | None = None
        ask: Ask | None = None
        try:
            caller = await authenticate_quickly(services.principals, services.keeper, scope, INFERENCE)
            body = await read_json(scope, receive)
            ask = self._prepare(body, _mode(scope, caller.principal))
            claim = claim_of(scope, self.path, caller.principal.workspace, body)
            admit = await _admission(ask, caller.principal, claim)
            opened = await services.gate.open(caller, admit)
            opened_s = services.clock.monotonic_s()
            connection: Connection = scope[CONNECTION]
            reply = await self._recall(opened, caller, admit, connection) if isinstance(opened, Repeated) else opened
        except PlatformError as error:
            self._note(call, caller, ask, error)
            raise
        call.request_id = reply.request_id
        try:
            await ask.answer(Exchanged(reply, call, opened_s, connection, send, ask.ignored))
        finally:
            await reply.abandon()  # nothing, if the answer is complete

    def _note(self, call: Call, caller: Caller | None, ask: Ask | None, error: PlatformError) -> None:
        who, tier = None if caller is None else caller.principal, "" if ask is None else ask.tier
        now_ms = self._services.clock.now_ms()
        self._services.refused.note_error(error, call.request_id, self.path, who, tier, now_ms)

    async def _recall(
        self, repeated: Repeated, caller: Caller, admit: Callable[[Principal], Admission], connection: Connection
    ) -> Reply:
        """The answer of the first request with this Idempotency-Key; if that failed and is not remembered, ask once
        more. Raises PlatformError.
        """
        exchange, gate = self._services.exchange, self._services.gate
        left = asyncio.Event()
        connection.when_lost(left.set)
        try:
            replayed = await exchange.recall(repeated, left)
            if replayed is not None:
                return replayed
            again = await gate.open(caller, admit)
            if not isinstance(again, Repeated):
                return again
            replayed = await exchange.recall(again, left)
            if replayed is not None:
                return replayed
        finally:
            connection.when_lost(None)
        message = "Every request with this Idempotency-Key has failed so far; nothing was charged. Try again."
        raise PlatformError(UNAVAILABLE, message, retry_after_s=1)


def _mode(scope: Scope, principal: Principal) -> Mode:
    asked = header(scope, MODE_HEADER_RAW)
    return mode_of(None if asked is None else asked.decode("latin-1"), principal.lenient)


async def _admission(ask: Ask, principal: Principal, claim: Claim | None) -> Callable[[Principal], Admission]:
    """What the gate calls. A large prompt is counted in a thread, and again only for a principal loaded anew."""
    if not ask.large:
        return lambda current: ask.admit(current, claim)
    made = await asyncio.to_thread(ask.admit, principal, claim)
    return lambda current: made if current is principal else ask.admit(current, claim)


async def _documented(_request: Request) -> None:
    """What FastAPI looks at for its document; requests go to `serve`."""
    raise AssertionError("a metered route serves its requests itself")
