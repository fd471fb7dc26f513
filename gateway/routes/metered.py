"""The only way to register a route that makes tokens: whatever it answers with, it was admitted and will be settled."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from core.queue.base import Admission, Claim
from gateway.exchange import Conversation, StalePrincipal
from gateway.middleware import Call, call_of, read_json
from gateway.principal import Principal
from gateway.protocol import CONNECTION
from gateway.routes.access import Caller, authenticate
from gateway.schemas.answers import ERROR_RESPONSES
from gateway.schemas.openapi import body_of
from gateway.services import Services

INFERENCE = "inference"


class Connection(Protocol):
    def when_lost(self, call: Callable[[], None] | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Exchanged:
    """An admitted request and how to talk to its caller. `opened_s`: when it had been admitted, monotonic."""

    conversation: Conversation
    call: Call
    opened_s: float
    connection: Connection
    send: Send


@dataclass(frozen=True, slots=True)
class Ask:
    """A checked request. `admit` says what to ask the queue for, and may be called again for a principal that was
    loaded anew; `answer` tells the caller what became of it. `ignored` are the fields that were accepted and do nothing.
    `large`: admit takes long, so call it in a thread.
    """

    admit: Callable[[Principal, Claim | None], Admission]
    answer: Callable[[Exchanged], Awaitable[None]]
    ignored: tuple[str, ...] = ()
    large: bool = False


class MeteredRoute(APIRoute):
    """Order of checks: key (401, 403), body (415, 413, 408, 422), model and rules (400), admission (402, 429, 503).

    FastAPI documents it; the request itself goes around FastAPI's parsing and validation of answers.
    """

    def __init__(
        self,
        path: str,
        services: Services,
        prepare: Callable[[bytes], Ask],
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
            responses={200: answers, **ERROR_RESPONSES},
            openapi_extra=body_of(body),
        )
        self._services = services
        self._prepare = prepare
        self.app = self.serve

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self
        services = self._services
        call = call_of(scope)
        caller = await authenticate(services.principals, scope, INFERENCE)
        ask = self._prepare(await read_json(scope, receive))
        conversation = await self._open(caller, ask)
        call.request_id = conversation.request_id
        try:
            await ask.answer(Exchanged(conversation, call, services.clock.monotonic_s(), scope[CONNECTION], send))
        finally:
            await conversation.abandon()  # nothing, if the answer is complete

    async def _open(self, caller: Caller, ask: Ask) -> Conversation:
        exchange, principals = self._services.exchange, self._services.principals
        try:
            return await exchange.open(ask.admit(caller.principal))
        except StalePrincipal:
            principals.forget(caller.secret)
        principal = await principals.by_key(caller.secret)
        try:
            return await exchange.open(ask.admit(principal))
        except StalePrincipal as stale:
            raise stale.error from None


async def _documented(_request: Request) -> None:
    """What FastAPI looks at for its document; requests go to `serve`."""
    raise AssertionError("a metered route serves its requests itself")
