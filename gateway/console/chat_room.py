"""What the routes of the chat read and change: rights, terms, and what a page shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from billing.prices import price_schedules
from core.catalog import Tier
from core.errors import CONFLICT, NOT_ALLOWED, VALIDATION, PlatformError
from gateway.accounts.console_keys import console_key, may_reopen, open_console_key, revoked_console_key
from gateway.accounts.models import ApiKey, Workspace
from gateway.accounts.roles import Permission
from gateway.accounts.workspaces import find_workspace, list_workspaces
from gateway.console.chat_models import Chat
from gateway.console.chat_store import (
    CONVERSATIONS_MAX,
    TURNS_MAX,
    UNTITLED,
    ChatTerms,
    Owner,
    add_message,
    change_terms,
    create_chat,
    find_chat,
    find_question,
    list_chats,
    messages_until,
)
from gateway.console.chat_talk import Question
from gateway.console.chat_thread import Thread
from gateway.console.desk import Changed, Console
from gateway.console.visitor import Place
from gateway.requests import Wish

WORKSPACES_MAX = 1_000
PER_MILLION = 1_000  # prices are for a thousand


@dataclass(frozen=True, slots=True)
class Offer:
    """A tier to choose, with its price for a million tokens in nano-units; None where there is none."""

    name: str
    description: str
    context_tokens: int
    temperature: float
    input_nano: int | None
    output_nano: int | None


class ChatRoom:
    def __init__(self, console: Console) -> None:
        services = console.services
        self._clock = services.clock
        self._ids = services.ids
        self._tiers: Sequence[Tier] = [tier for tier in services.catalog.tiers if tier.kind == "chat"]

    def owner(self, place: Place) -> Owner:
        return Owner(place.visitor.signed_in.user, place.id)

    def create(self, session: Session, place: Place, terms: ChatTerms) -> Changed[str]:
        checked = self._checked(session, place, terms)
        return create_chat(session, self.owner(place), checked, clock=self._clock, ids=self._ids).id, ()

    def change(self, session: Session, place: Place, chat_id: str, terms: ChatTerms) -> Changed[None]:
        chat = find_chat(session, self.owner(place), chat_id, lock=True)
        change_terms(session, chat, self._checked(session, place, terms))
        return None, ()

    def ask(self, session: Session, place: Place, chat_id: str, text: str, parent: int) -> Changed[Question]:
        """Keep the message; what it is answered with comes after the commit. Raises PlatformError."""
        chat = find_chat(session, self.owner(place), chat_id, lock=True)
        key = self._key(session, place, chat.workspace_id)
        turn = add_message(session, chat, parent, text, self._clock)
        return self._question(session, chat, key, turn.number), ()

    def ask_again(self, session: Session, place: Place, chat_id: str, number: int) -> Changed[Question]:
        chat = find_chat(session, self.owner(place), chat_id, lock=True)
        key = self._key(session, place, chat.workspace_id)
        return self._question(session, chat, key, find_question(session, chat, number).number), ()

    def page(self, session: Session, place: Place, chat: Chat | None, thread: Thread, wanted: str) -> Mapping[str, Any]:
        owner = self.owner(place)
        workspaces = self._workspaces(session, place)
        home = _home(workspaces) if chat is None else chat.workspace_id
        key = console_key(session, owner.user, home)
        revoked = None
        if key is not None and key.revoked_ms is not None:
            revoked = revoked_console_key(session, key.id, within=place.id)
        return {
            "chat": chat,
            "chats": list_chats(session, owner, wanted),
            "q": wanted,
            "open_chat": "" if chat is None else chat.id,
            "thread": thread,
            "title": UNTITLED if chat is None or not chat.title else chat.title,
            "workspaces": workspaces,
            "workspace": home,
            "offers": self._offers(session, place, key),
            "key": key,
            "revoked": revoked,
            "may_reopen": revoked is not None and may_reopen(revoked, place.visitor.access, within=place.id),
            "may_write": revoked is None and bool(workspaces) and place.may(Permission.INFERENCE_CHAT, home),
            "is_full": thread.count + 2 > TURNS_MAX,
            "turns_max": TURNS_MAX,
            "conversations_max": CONVERSATIONS_MAX,
        }

    def _checked(self, session: Session, place: Place, terms: ChatTerms) -> ChatTerms:
        home = find_workspace(session, terms.workspace, within=place.id)
        place.visitor.access.require(Permission.INFERENCE_CHAT, place.id, home.id)
        if home.archived_ms is not None:
            raise PlatformError(CONFLICT, "This workspace is archived: choose another.", param="workspace")
        if terms.tier not in {tier.name for tier in self._tiers}:
            raise PlatformError(VALIDATION, f"There is no tier {terms.tier!r} to chat with.", param="tier")
        return replace(terms, workspace=home.id)

    def _key(self, session: Session, place: Place, workspace: str) -> ApiKey:
        place.visitor.access.require(Permission.INFERENCE_CHAT, place.id, workspace)
        key = open_console_key(
            session,
            place.visitor.signed_in.user,
            workspace,
            within=place.id,
            actor=place.visitor.actor,
            clock=self._clock,
            ids=self._ids,
        )
        if key.revoked_ms is not None:
            raise PlatformError(NOT_ALLOWED, "The key of your chat in this workspace was revoked: open this page anew.")
        return key

    def _question(self, session: Session, chat: Chat, key: ApiKey, number: int) -> Question:
        wish = Wish(
            stream=True,
            temperature=chat.temperature,
            top_p=1.0 if chat.top_p is None else chat.top_p,
            max_tokens=chat.max_tokens,
            seed=chat.seed,
        )
        messages = messages_until(session, chat, number)
        return Question(chat.id, number, key.id, chat.workspace_id, chat.tier, messages, wish)

    def _workspaces(self, session: Session, place: Place) -> list[Workspace]:
        """Those in which the visitor may chat."""
        shown = place.workspaces(Permission.INFERENCE_CHAT)
        return [
            each
            for each in list_workspaces(session, within=place.id, count=WORKSPACES_MAX)
            if each.archived_ms is None and (shown is None or each.id in shown)
        ]

    def _offers(self, session: Session, place: Place, key: ApiKey | None) -> list[Offer]:
        """The tiers that the key may use, as this organisation pays for them now."""
        allowed = None if key is None or key.tiers is None else set(key.tiers)
        tiers = [tier for tier in self._tiers if allowed is None or tier.name in allowed]
        now_ms = self._clock.now_ms()
        schedules = price_schedules(session, place.id, place.plan, [tier.name for tier in tiers], now_ms)
        out = []
        for tier in tiers:
            begun = [price for price in schedules.get(tier.name, ()) if price.start_ms <= now_ms]
            price = begun[-1] if begun else None
            out.append(
                Offer(
                    tier.name,
                    tier.description,
                    tier.context_tokens,
                    tier.temperature_default,
                    None if price is None else price.input_nano * PER_MILLION,
                    None if price is None else price.output_nano * PER_MILLION,
                )
            )
        return out


def _home(workspaces: Sequence[Workspace]) -> str:
    """Where a new conversation begins: the default workspace, else the oldest; empty where there is none."""
    return next((each.id for each in workspaces if each.is_default), workspaces[0].id if workspaces else "")
