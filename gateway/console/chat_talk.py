"""One turn of a chat: admitted as any request is, told to the browser as it comes, and kept, also when it was cut."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request
from sqlalchemy.orm import Session
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from core.errors import NOT_ALLOWED, UNAUTHORIZED, UNAVAILABLE, PlatformError
from core.queue.base import Admission
from core.wire import Usage
from gateway.accounts.roles import Permission
from gateway.accounts.scopes import INFERENCE
from gateway.console.chat_models import NOTE_LENGTH_MAX
from gateway.console.chat_store import Owner, Said, add_answer
from gateway.console.desk import Changed, Console
from gateway.console.formats import money
from gateway.console.pages import HEADERS
from gateway.console.visitor import Place
from gateway.conversation import REVOKED, SLOW_READER, Conversation
from gateway.headers import EVENT_STREAM_TYPE
from gateway.middleware import call_of
from gateway.principal import Principal
from gateway.protocol import CONNECTION
from gateway.replies import Delta, Finished, Waiting
from gateway.requests import ChatRequest, Wish
from gateway.routes.access import authenticate_session
from gateway.routes.relay import NO_BUFFERING

ROUTE = "/console/chat"  # as refusals name it
LARGE_CHARS = 16_384  # beyond this, counting tokens takes so long that others would feel it
LOOK_S = 2.0  # how often an open stream asks whether its session and role last
KEEP_TRIES = 5
KEEP_PAUSE_S = 1.0
STOPPED, ERROR = "stopped", "error"
MS_PER_S = 1_000
KEY_ENDED = "The key of this chat is not valid any more."
SESSION_ENDED = "Your session has ended: log in again."
ROLE_ENDED = "You may not chat in this workspace any more."
CREDIT_ENDED = "The credit of the organisation was used up here."
# Billed as if the browser had left: only the usage record tells what it was.
_BILLED_AS_LEFT = frozenset({REVOKED, SLOW_READER})
_HEADERS = (
    (b"content-type", EVENT_STREAM_TYPE),
    NO_BUFFERING,
    *((name.encode("ascii"), value.encode("ascii")) for name, value in HEADERS.items()),
)


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be answered: turn `number` of a conversation, by a key of this workspace."""

    chat: str
    number: int
    key_id: str
    workspace: str
    tier: str
    messages: Sequence[Mapping[str, str]]
    wish: Wish


class Talks:
    def __init__(self, console: Console) -> None:
        self.console = console

    async def open(self, request: Request, place: Place, question: Question) -> Response:
        """The stream of an answer. Raises PlatformError as admission does."""
        services = self.console.services
        call, principal = call_of(request.scope), None
        try:
            caller = await authenticate_session(services.principals, request.scope, question.key_id, INFERENCE)
            principal = caller.principal
            tier = services.admitter.tier(question.tier, "chat")
            asked = ChatRequest(tier, question.messages, question.wish)
            opened = await services.gate.open(caller, await self._admission(asked, principal))
        except PlatformError as error:
            services.refused.note_error(
                error, call.request_id, ROUTE, principal, question.tier, services.clock.now_ms()
            )
            if error.kind is UNAUTHORIZED:  # the key's; the session is as it should be
                raise PlatformError(NOT_ALLOWED, KEY_ENDED) from error
            raise
        assert isinstance(opened, Conversation), "only an Idempotency-Key finds an earlier answer"
        call.request_id = opened.request_id
        return Talk(self.console, request, place, question, opened, services.clock.monotonic_s())

    async def _admission(self, asked: ChatRequest, principal: Principal) -> Callable[[Principal], Admission]:
        """What the gate calls. A large prompt is counted in a thread, and again only for a principal loaded anew."""
        admitter = self.console.services.admitter
        if sum(len(message["content"]) for message in asked.messages) <= LARGE_CHARS:
            return lambda current: admitter.chat(current, asked)
        made = await asyncio.to_thread(admitter.chat, principal, asked)
        return lambda current: made if current is principal else admitter.chat(current, asked)


class Talk(Response):
    """Server-sent events: begun, waiting, delta, and at last end; data is JSON. Whatever happens, what was said is
    kept, and a request whose reader has gone is stopped.
    """

    def __init__(
        self, console: Console, request: Request, place: Place, question: Question, reply: Conversation, opened_s: float
    ) -> None:
        super().__init__()
        self._console = console
        self._request = request
        self._place = place
        self._question = question
        self._reply = reply
        self._opened_s = opened_s
        self._words: list[str] = []
        self._why_revoked = KEY_ENDED

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - nothing more is read
        metrics, reply = self._console.services.metrics, self._reply
        connection = scope[CONNECTION]
        metrics.stream_opened()
        watching = asyncio.create_task(self._watch())
        connection.when_lost(reply.leave)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await _say(send, "begun", {"request_id": reply.request_id, "question": self._question.number})
            end = await self._tell(send)
            number = await self._keep(end)
            await _say(send, "end", self._ended(end, number))
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            connection.when_lost(None)
            watching.cancel()
            metrics.stream_closed()
            await reply.abandon()  # nothing, if the answer is complete

    async def _tell(self, send: Send) -> Finished | None:
        """None: the browser has gone. What fails before the first word is an end, too."""
        reply, services = self._reply, self._console.services
        tier, begun_s, begun = self._question.tier, call_of(self._request.scope).started_s, False
        try:
            async for event in reply.events():
                if not begun:
                    begun = True
                    services.metrics.started(tier, services.clock.monotonic_s() - begun_s)
                if isinstance(event, Delta):
                    self._words.append(event.text)
                    await _say(send, "delta", {"text": event.text})
                    reply.delivered(event.choice, event.token_count)
                elif isinstance(event, Waiting):
                    about_s = -(-event.queue_wait_ms // MS_PER_S)
                    await _say(send, "waiting", {"queued": event.queue_position >= 0, "about_s": max(0, about_s)})
                else:
                    services.metrics.finished(tier, event.usage, self._opened_s - begun_s)
                    return event
        except PlatformError as error:
            again = "" if error.retry_after_s is None else f" Try again in {error.retry_after_s} s."
            ended_by = REVOKED if error.kind is UNAUTHORIZED else None
            return Finished((ERROR,), Usage(), ended_by=ended_by, error=f"{error.message}{again}")
        return None

    async def _watch(self) -> None:
        """A session that has ended and a role that was taken away end the answer, as a revoked key does."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                place = await self._console.enter(self._request, self._place.id)
                place.visitor.access.require(Permission.INFERENCE_CHAT, place.id, self._question.workspace)
            except PlatformError as error:
                if error.kind is UNAVAILABLE:
                    continue
                self._why_revoked = SESSION_ENDED if error.kind is UNAUTHORIZED else ROLE_ENDED
                await self._reply.revoke()
                return

    async def _keep(self, end: Finished | None) -> int:
        """The number of the answer; 0 if it could not be kept."""
        place, question, services = self._place, self._question, self._console.services
        said = Said(
            question=question.number,
            content="".join(self._words),
            tier=question.tier,
            request_id=self._reply.request_id,
            finish_reason=STOPPED if end is None else end.finish_reasons[0],
            note=self._note(end)[:NOTE_LENGTH_MAX],
            finished=end if end is not None and _is_known(end) else None,
        )
        owner = Owner(place.visitor.signed_in.user, place.id)

        def work(session: Session) -> Changed[int]:
            return add_answer(session, owner, question.chat, said, services.clock), ()

        for _ in range(KEEP_TRIES):
            try:
                return await self._console.change(work)
            except PlatformError as error:
                if error.kind is not UNAVAILABLE:
                    return 0  # the conversation was deleted in the meantime
            await asyncio.sleep(KEEP_PAUSE_S)
        services.log.warning("answer of a chat not kept", request_id=self._reply.request_id)
        return 0

    def _note(self, end: Finished | None) -> str:
        """Why it is not whole, if there is more to say than the finish reason does."""
        if end is None:
            return ""
        if end.ended_by == REVOKED:
            return self._why_revoked
        if end.error is not None:
            return end.error
        if end.ended_by is None:
            return ""
        return CREDIT_ENDED if end.ended_by == "credit" else f"The limit {end.ended_by} was reached here."

    def _ended(self, end: Finished | None, number: int) -> Mapping[str, Any]:
        told: dict[str, Any] = {
            "turn": number,
            "request_id": self._reply.request_id,
            "finish_reason": STOPPED if end is None else end.finish_reasons[0],
            "note": self._note(end),
        }
        if end is not None and _is_known(end):
            usage = end.usage
            told |= {
                "prompt_tokens": usage.prompt_tokens,
                "cached_tokens": usage.cached_tokens,
                "completion_tokens": usage.completion_tokens,
                "cost": money(end.cost_nano),
                "cost_nano": end.cost_nano,
                "currency": self._place.currency,
            }
        return told


def _is_known(end: Finished) -> bool:
    """Whether its usage is what will be charged."""
    return end.ended_by not in _BILLED_AS_LEFT


async def _say(send: Send, name: str, data: Mapping[str, Any]) -> None:
    body = b"event: %b\ndata: %b\n\n" % (name.encode("ascii"), orjson.dumps(data))
    await send({"type": "http.response.body", "body": body, "more_body": True})
