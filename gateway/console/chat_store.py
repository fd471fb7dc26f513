"""Conversations in SQL. Everything is asked for by its owner and organisation: what is another's does not exist."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from sqlalchemy import delete, exists, func, or_, select
from sqlalchemy.orm import Session

from core.clock import Clock
from core.errors import CONFLICT, NOT_FOUND, VALIDATION, PlatformError
from core.ids import IdSource
from gateway.console.chat_models import ASSISTANT, TITLE_LENGTH_MAX, USER, Chat, Turn
from gateway.replies import Finished

ID_BYTES = 16
CONVERSATIONS_MAX = 500  # of one person in one organisation
TURNS_MAX = 400  # of one conversation, all versions counted
LISTED_MAX = 60
UNTITLED = "New conversation"


@dataclass(frozen=True, slots=True)
class Owner:
    user: str
    organisation: str


@dataclass(frozen=True, slots=True)
class ChatTerms:
    """What a conversation's next turn is asked with; None: as the tier says."""

    workspace: str
    tier: str
    system: str = ""
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    id: str
    title: str
    updated_ms: int


@dataclass(frozen=True, slots=True)
class Said:
    """An answer as far as it came. `finished` None: the browser left before the end."""

    question: int
    content: str
    tier: str
    request_id: str
    finish_reason: str
    note: str
    finished: Finished | None


def list_chats(session: Session, owner: Owner, wanted: str = "", count: int = LISTED_MAX) -> list[Listed]:
    """Youngest first; `wanted`: a part of the title or of what was said, whatever its case."""
    query = select(Chat.id, Chat.title, Chat.updated_ms).where(*_of(owner))
    if wanted:
        part = wanted.lower()
        said = exists().where(Turn.conversation_id == Chat.id, func.lower(Turn.content).contains(part, autoescape=True))
        query = query.where(or_(func.lower(Chat.title).contains(part, autoescape=True), said))
    query = query.order_by(Chat.updated_ms.desc(), Chat.id).limit(count)
    return [Listed(*row) for row in session.execute(query)]


def find_chat(session: Session, owner: Owner, chat_id: str, *, lock: bool = False) -> Chat:
    """Raises PlatformError (NOT_FOUND). `lock`: whoever else locks it waits until the unit of work is over."""
    query = select(Chat).where(Chat.id == chat_id, *_of(owner))
    found = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if found is None:
        raise PlatformError(NOT_FOUND, "There is no such conversation, or it is not yours.")
    return found


def create_chat(session: Session, owner: Owner, terms: ChatTerms, *, clock: Clock, ids: IdSource) -> Chat:
    """Raises PlatformError (CONFLICT) beyond the bound."""
    count = session.scalar(select(func.count()).select_from(Chat).where(*_of(owner)))
    if (count or 0) >= CONVERSATIONS_MAX:
        raise PlatformError(CONFLICT, f"You keep {CONVERSATIONS_MAX} conversations here already: delete some first.")
    now_ms = clock.now_ms()
    chat = Chat(
        id=ids.token(ID_BYTES),
        organisation_id=owner.organisation,
        user_id=owner.user,
        title="",
        leaf=0,
        created_ms=now_ms,
        updated_ms=now_ms,
        **_columns(terms),
    )
    session.add(chat)
    session.flush()
    return chat


def change_terms(session: Session, chat: Chat, terms: ChatTerms) -> None:
    for name, value in _columns(terms).items():
        setattr(chat, name, value)
    session.flush()


def rename_chat(session: Session, chat: Chat, title: str) -> None:
    chat.title = title[:TITLE_LENGTH_MAX]
    session.flush()


def delete_chat(session: Session, chat: Chat) -> None:
    """With all that was said: nothing of it is kept. What it cost stays in the books, which hold no words."""
    session.execute(delete(Turn).where(Turn.conversation_id == chat.id))
    session.delete(chat)
    session.flush()


def add_message(session: Session, chat: Chat, parent: int, text: str, clock: Clock) -> Turn:
    """What the person says next, or instead: another version is a turn with the same parent. Lock the conversation
    first. Raises PlatformError: VALIDATION, CONFLICT for one that is full.
    """
    count, last = _extent(session, chat.id)
    if count + 2 > TURNS_MAX:
        message = f"This conversation has {count} messages, and {TURNS_MAX} is the most: begin a new one."
        raise PlatformError(CONFLICT, message)
    if parent and session.get(Turn, (chat.id, parent)) is None:
        raise PlatformError(VALIDATION, "What this message follows is not there any more.", param="parent")
    if not chat.title:
        chat.title = _title(text)
    return _add(session, chat, clock, number=last + 1, parent=parent, role=USER, content=text, tier=chat.tier)


def find_question(session: Session, chat: Chat, number: int) -> Turn:
    """A message to be answered (again). Raises PlatformError: NOT_FOUND, CONFLICT for a conversation that is full."""
    found = session.get(Turn, (chat.id, number))
    if found is None or found.role != USER:
        raise PlatformError(NOT_FOUND, "This message is not there any more.")
    count, _ = _extent(session, chat.id)
    if count >= TURNS_MAX:
        raise PlatformError(CONFLICT, f"This conversation has its {TURNS_MAX} messages: begin a new one.")
    chat.leaf = number
    session.flush()
    return found


def add_answer(session: Session, owner: Owner, chat_id: str, said: Said, clock: Clock) -> int:
    """Its number. Raises PlatformError (NOT_FOUND) if the conversation was deleted in the meantime."""
    chat = find_chat(session, owner, chat_id, lock=True)
    _, last = _extent(session, chat.id)
    end = said.finished
    turn = _add(
        session,
        chat,
        clock,
        number=last + 1,
        parent=said.question,
        role=ASSISTANT,
        content=said.content.replace("\0", "\N{REPLACEMENT CHARACTER}"),
        tier=said.tier,
        prompt_tokens=None if end is None else end.usage.prompt_tokens,
        cached_tokens=None if end is None else end.usage.cached_tokens,
        completion_tokens=None if end is None else end.usage.completion_tokens,
        cost_nano=None if end is None else end.cost_nano,
        request_id=said.request_id,
        finish_reason=said.finish_reason,
        note=said.note,
    )
    return turn.number


def messages_until(session: Session, chat: Chat, number: int) -> list[Mapping[str, str]]:
    """What the model is asked: the system prompt and the branch that ends with this turn. Answers without a word are
    left out, and what the person said before and after them is one message.
    """
    rows = session.execute(select(Turn.number, Turn.parent).where(Turn.conversation_id == chat.id))
    parents: dict[int, int] = {row.number: row.parent for row in rows}
    wanted = branch(parents, number)
    query = select(Turn.number, Turn.role, Turn.content).where(Turn.conversation_id == chat.id)
    turns = {row.number: row for row in session.execute(query.where(Turn.number.in_(wanted)))}
    out: list[dict[str, str]] = [{"role": "system", "content": chat.system}] if chat.system else []
    for each in (turns[number] for number in wanted):
        if not each.content:
            continue
        if out and out[-1]["role"] == each.role:
            out[-1]["content"] += f"\n\n{each.content}"
        else:
            out.append({"role": each.role, "content": each.content})
    return list(out)


def branch(parents: Mapping[int, int], number: int) -> list[int]:
    """From the first turn to this one."""
    found = []
    while number:
        found.append(number)
        number = parents[number]
    return found[::-1]


def _extent(session: Session, chat_id: str) -> tuple[int, int]:
    """How many turns there are, and the last one's number."""
    query = select(func.count(), func.coalesce(func.max(Turn.number), 0)).where(Turn.conversation_id == chat_id)
    count, last = session.execute(query).one()
    return count, last


def _add(session: Session, chat: Chat, clock: Clock, *, number: int, **values: Any) -> Turn:
    blank: dict[str, Any] = {
        **dict.fromkeys(("prompt_tokens", "cached_tokens", "completion_tokens", "cost_nano")),
        **dict.fromkeys(("request_id", "finish_reason", "note"), ""),
    }
    now_ms = clock.now_ms()
    turn = Turn(conversation_id=chat.id, number=number, at_ms=now_ms, **{**blank, **values})
    session.add(turn)
    chat.leaf, chat.updated_ms = number, now_ms
    session.flush()
    return turn


def _columns(terms: ChatTerms) -> dict[str, Any]:
    return {
        "workspace_id": terms.workspace,
        "tier": terms.tier,
        "system": terms.system,
        "temperature": terms.temperature,
        "top_p": terms.top_p,
        "max_tokens": terms.max_tokens,
        "seed": terms.seed,
    }


def _of(owner: Owner) -> Sequence[Any]:
    return Chat.user_id == owner.user, Chat.organisation_id == owner.organisation


def _title(text: str) -> str:
    """The beginning of what was asked first."""
    return shorten(text, TITLE_LENGTH_MAX // 2, placeholder="…") or text.strip()[: TITLE_LENGTH_MAX // 2]
