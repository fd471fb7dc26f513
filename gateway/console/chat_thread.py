"""One branch of a conversation as it is shown: each turn with its other versions, tokens and cost."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from billing.models import UsageRecord
from gateway.console.chat_models import ASSISTANT, Chat, Turn
from gateway.console.chat_store import branch


@dataclass(frozen=True, slots=True)
class Facts:
    """What an answer took; None where it is still being counted."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_nano: int


@dataclass(frozen=True, slots=True)
class Shown:
    """A turn of the branch. `version` of `versions` by age; `before` and `after` are the numbers of its neighbours
    among them, 0 where there is none.
    """

    number: int
    parent: int
    role: str
    content: str
    tier: str
    facts: Facts | None
    request_id: str
    finish_reason: str
    note: str
    at_ms: int
    version: int
    versions: int
    before: int
    after: int

    @property
    def is_answer(self) -> bool:
        return self.role == ASSISTANT


@dataclass(frozen=True, slots=True)
class Totals:
    """Of the whole conversation, all versions counted. `counting`: of so many answers the usage is still to come."""

    answers: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_nano: int = 0
    counting: int = 0


@dataclass(frozen=True, slots=True)
class Thread:
    turns: Sequence[Shown] = ()
    totals: Totals = Totals()
    count: int = 0

    @property
    def leaf(self) -> int:
        return self.turns[-1].number if self.turns else 0

    @property
    def unanswered(self) -> int:
        """The last message, if nothing answers it; else 0."""
        return self.turns[-1].number if self.turns and not self.turns[-1].is_answer else 0


def thread_of(session: Session, chat: Chat, turn: int | None = None) -> Thread:
    """The branch last looked at, or the youngest one through this turn."""
    wordless = select(Turn).options(defer(Turn.content)).where(Turn.conversation_id == chat.id)
    rows = {row.number: row for row in session.scalars(wordless.order_by(Turn.number))}
    if not rows:
        return Thread()
    children: dict[int, list[int]] = defaultdict(list)
    for number, row in rows.items():
        children[row.parent].append(number)
    wanted = chat.leaf if turn is None else turn
    end = _youngest(children, wanted if wanted in rows else max(rows))
    numbers = branch({number: row.parent for number, row in rows.items()}, end)
    query = select(Turn.number, Turn.content).where(Turn.conversation_id == chat.id, Turn.number.in_(numbers))
    words = {row.number: row.content for row in session.execute(query)}
    facts = _facts(session, rows.values())
    shown = []
    for number in numbers:
        row = rows[number]
        versions = [each for each in children[row.parent] if rows[each].role == row.role]
        at = versions.index(number)
        shown.append(
            Shown(
                number=number,
                parent=row.parent,
                role=row.role,
                content=words[number],
                tier=row.tier,
                facts=facts.get(number),
                request_id=row.request_id,
                finish_reason=row.finish_reason,
                note=row.note,
                at_ms=row.at_ms,
                version=at + 1,
                versions=len(versions),
                before=versions[at - 1] if at else 0,
                after=versions[at + 1] if at + 1 < len(versions) else 0,
            )
        )
    return Thread(shown, _totals(rows.values(), facts), len(rows))


def every_turn(session: Session, chat: Chat) -> list[Turn]:
    """By number, with its words: for exports."""
    return list(session.scalars(select(Turn).where(Turn.conversation_id == chat.id).order_by(Turn.number)))


def _youngest(children: Mapping[int, Sequence[int]], number: int) -> int:
    while children.get(number):
        number = max(children[number])
    return number


def _facts(session: Session, rows: Iterable[Turn]) -> dict[int, Facts]:
    """Kept with the answer where its end was seen, else from the usage record, once it is collected."""
    answers = [row for row in rows if row.role == ASSISTANT]
    missing = [row.request_id for row in answers if row.cost_nano is None and row.request_id]
    columns = (
        UsageRecord.request_id,
        UsageRecord.prompt_tokens,
        UsageRecord.cached_tokens,
        UsageRecord.completion_tokens,
        UsageRecord.cost_nano,
    )
    records = {}
    if missing:
        query = select(*columns).where(UsageRecord.request_id.in_(missing))
        records = {row.request_id: Facts(*row[1:]) for row in session.execute(query)}
    out = {}
    for row in answers:
        if row.cost_nano is not None:
            prompt, cached, completion = row.prompt_tokens or 0, row.cached_tokens or 0, row.completion_tokens or 0
            out[row.number] = Facts(prompt, cached, completion, row.cost_nano)
        elif row.request_id in records:
            out[row.number] = records[row.request_id]
    return out


def _totals(rows: Iterable[Turn], facts: Mapping[int, Facts]) -> Totals:
    answers = [row.number for row in rows if row.role == ASSISTANT]
    known = [facts[number] for number in answers if number in facts]
    return Totals(
        answers=len(answers),
        prompt_tokens=sum(each.prompt_tokens for each in known),
        cached_tokens=sum(each.cached_tokens for each in known),
        completion_tokens=sum(each.completion_tokens for each in known),
        cost_nano=sum(each.cost_nano for each in known),
        counting=len(answers) - len(known),
    )
