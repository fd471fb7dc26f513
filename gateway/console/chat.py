"""The chat: conversations of one person, answered by any tier of the organisation and paid for as every request is."""

from collections.abc import Awaitable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, Field
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from core.errors import PlatformError
from gateway.accounts.console_keys import Revoked, may_reopen, reopen_console_key, revoked_console_key
from gateway.accounts.roles import Permission
from gateway.console.chat_export import chat_json, chat_markdown
from gateway.console.chat_models import TITLE_LENGTH_MAX
from gateway.console.chat_room import ChatRoom
from gateway.console.chat_store import ChatTerms, delete_chat, find_chat, list_chats, rename_chat
from gateway.console.chat_talk import Talks
from gateway.console.chat_thread import Thread, every_turn, thread_of
from gateway.console.desk import Console
from gateway.console.entrance import Fields, NoFields
from gateway.console.pages import HEADERS, html
from gateway.console.visitor import Place
from gateway.schemas.fields import INTEGER_MAX, Seed, Temperature, TopP

MESSAGE_CHARS_MAX = 20_000
SYSTEM_CHARS_MAX = 8_000
SEARCH_CHARS_MAX = 128


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("A text has no NUL characters")
    return text


PlainText = Annotated[str, AfterValidator(_without_nul)]
Wanted = Annotated[str, Query(max_length=SEARCH_CHARS_MAX)]
TurnNumber = Annotated[int | None, Query(ge=1, le=INTEGER_MAX)]


class SettingsForm(Fields):
    workspace: str = Field(max_length=32)
    tier: str = Field(max_length=64)
    system: PlainText = Field(default="", max_length=SYSTEM_CHARS_MAX)
    temperature: Temperature | None = None
    top_p: TopP | None = None
    max_tokens: Annotated[int, Field(ge=1, le=INTEGER_MAX)] | None = None
    seed: Seed | None = None

    def terms(self) -> ChatTerms:
        return ChatTerms(**self.model_dump())


class MessageForm(Fields):
    text: PlainText = Field(max_length=MESSAGE_CHARS_MAX)
    parent: int = Field(default=0, ge=0, le=INTEGER_MAX)


class RetryForm(Fields):
    question: int = Field(ge=1, le=INTEGER_MAX)


class TitleForm(Fields):
    title: PlainText = Field(max_length=TITLE_LENGTH_MAX)


def chat_router(console: Console) -> APIRouter:
    router = console.router()
    room, talks = ChatRoom(console), Talks(console)
    _reading(router, console, room)
    _keeping(router, console, room)
    _keys(router, console)

    @router.post("/o/{organisation}/chat/{chat}/messages")
    async def say(request: Request, organisation: str, chat: str) -> Response:
        place = await console.enter(request, organisation)
        asked = await console.form(request, place.visitor, MessageForm)
        question = await console.change(lambda session: room.ask(session, place, chat, asked.text, asked.parent))
        return await _answer(console, request, place, talks.open(request, place, question))

    @router.post("/o/{organisation}/chat/{chat}/answers")
    async def retry(request: Request, organisation: str, chat: str) -> Response:
        place = await console.enter(request, organisation)
        asked = await console.form(request, place.visitor, RetryForm)
        question = await console.change(lambda session: room.ask_again(session, place, chat, asked.question))
        return await _answer(console, request, place, talks.open(request, place, question))

    return router


async def _answer(console: Console, request: Request, place: Place, opening: Awaitable[Response]) -> Response:
    """The stream, or why it was refused, as a part of the page."""
    try:
        return await opening
    except PlatformError as error:
        text = await console.fragment(request, "parts/chat_refusal.html", {"error": error}, place)
        return html(text, error.kind.status)


def _reading(router: APIRouter, console: Console, room: ChatRoom) -> None:
    @router.get("/o/{organisation}/chat")
    async def begin(request: Request, organisation: str, q: Wanted = "") -> Response:
        place = await console.enter(request, organisation, Permission.INFERENCE_CHAT)
        context = await console.read(lambda session: room.page(session, place, None, Thread(), q))
        return await console.page(request, "pages/chat.html", context, place=place)

    @router.get("/o/{organisation}/chat/list")
    async def listed(request: Request, organisation: str, q: Wanted = "", open: str = "") -> Response:  # noqa: A002 - the query's own name
        place = await console.enter(request, organisation, Permission.INFERENCE_CHAT)
        chats = await console.read(lambda session: list_chats(session, room.owner(place), q))
        context = {"chats": chats, "q": q, "open_chat": open}
        return html(await console.fragment(request, "parts/chat_list.html", context, place))

    @router.get("/o/{organisation}/chat/{chat}")
    async def show(request: Request, organisation: str, chat: str, turn: TurnNumber = None) -> Response:
        place = await console.enter(request, organisation)

        def read(session: Session) -> Mapping[str, Any]:
            found = find_chat(session, room.owner(place), chat)
            return room.page(session, place, found, thread_of(session, found, turn), "")

        context = await console.read(read)
        return await console.page(request, "pages/chat.html", context, place=place)

    @router.get("/o/{organisation}/chat/{chat}/export")
    async def export(request: Request, organisation: str, chat: str, format: str = "markdown") -> Response:  # noqa: A002 - the query's own name
        place = await console.enter(request, organisation)

        def read(session: Session) -> tuple[str, str, str]:
            found = find_chat(session, room.owner(place), chat)
            if format == "json":
                return chat_json(found, every_turn(session, found)), "application/json", "json"
            return chat_markdown(found, thread_of(session, found), place.zone), "text/markdown; charset=utf-8", "md"

        text, media_type, suffix = await console.read(read)
        headers = {**HEADERS, "content-disposition": f'attachment; filename="conversation-{chat[:8]}.{suffix}"'}
        return Response(text, media_type=media_type, headers=headers)


def _keeping(router: APIRouter, console: Console, room: ChatRoom) -> None:
    @router.post("/o/{organisation}/chat")
    async def create(request: Request, organisation: str) -> Response:
        place = await console.enter(request, organisation)
        asked = await console.form(request, place.visitor, SettingsForm)
        made = await console.change(lambda session: room.create(session, place, asked.terms()))
        return JSONResponse({"id": made, "path": f"{place.path}/chat/{made}"}, 201, HEADERS)

    @router.post("/o/{organisation}/chat/{chat}/settings")
    async def change(request: Request, organisation: str, chat: str) -> Response:
        place = await console.enter(request, organisation)
        asked = await console.form(request, place.visitor, SettingsForm)
        await console.change(lambda session: room.change(session, place, chat, asked.terms()))
        return Response(status_code=204, headers=HEADERS)

    @router.post("/o/{organisation}/chat/{chat}/rename")
    async def rename(request: Request, organisation: str, chat: str) -> Response:
        place = await console.enter(request, organisation)
        asked = await console.form(request, place.visitor, TitleForm)

        def work(session: Session) -> tuple[None, tuple[()]]:
            rename_chat(session, find_chat(session, room.owner(place), chat, lock=True), asked.title)
            return None, ()

        await console.change(work)
        return console.done(request, f"{place.path}/chat/{chat}")

    @router.post("/o/{organisation}/chat/{chat}/delete")
    async def delete(request: Request, organisation: str, chat: str) -> Response:
        place = await console.enter(request, organisation)
        await console.form(request, place.visitor, NoFields)

        def work(session: Session) -> tuple[None, tuple[()]]:
            delete_chat(session, find_chat(session, room.owner(place), chat, lock=True))
            return None, ()

        await console.change(work)
        target = f"{place.path}/chat" if place.somewhere(Permission.INFERENCE_CHAT) else "/console"
        return console.done(request, target, "The conversation is deleted, with every word of it.")


def _keys(router: APIRouter, console: Console) -> None:
    """A chat that was ended by revoking its key is opened again on a page of its own: the link to it can be sent."""

    @router.get("/o/{organisation}/chat/keys/{key}")
    async def show(request: Request, organisation: str, key: str) -> Response:
        place = await console.enter(request, organisation)
        revoked = await console.read(lambda session: revoked_console_key(session, key, within=place.id))
        access = place.visitor.access
        may = may_reopen(revoked, access, within=place.id)
        if not may and revoked.user != access.user:
            access.require(Permission.KEYS_MANAGE, place.id, revoked.workspace)
        context = {"revoked": revoked, "may_reopen": may}
        return await console.page(request, "pages/chat_key.html", context, place=place)

    @router.post("/o/{organisation}/chat/keys/{key}")
    async def reopen(request: Request, organisation: str, key: str) -> Response:
        place = await console.enter(request, organisation)
        await console.form(request, place.visitor, NoFields)
        access, actor, clock = place.visitor.access, place.visitor.actor, console.services.clock

        def work(session: Session) -> tuple[Revoked, tuple[()]]:
            return reopen_console_key(session, key, within=place.id, access=access, actor=actor, clock=clock), ()

        done = await console.change(work)
        own = done.user == place.visitor.access.user
        target = f"{place.path}/chat" if own else f"{place.path}/members"
        told = "Your chat is open again." if own else f"{done.person} may chat again in {done.workspace_name}."
        return console.done(request, target, told)
