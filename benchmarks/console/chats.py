"""Ada, who operates the platform, owns the largest organisation, and has chatted a lot."""

import random
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from benchmarks.console.people import Company, token
from gateway.accounts.console_keys import ConsoleKey
from gateway.accounts.models import ApiKey
from gateway.accounts.people import PERSON, Member, User
from gateway.accounts.roles import Role
from gateway.accounts.scopes import INFERENCE
from gateway.console.chat_models import ASSISTANT, USER, Chat, Turn

OPERATOR_ID = "ada" + 29 * "0"
OPERATOR_EMAIL = "ada@operator.example"
CHATS, TURNS, TURNS_OF_THE_LONGEST = 400, 8, 300
MINUTE_MS = 60_000
TOPICS = ("Quarterly figures", "A letter to suppliers", "Regular expressions", "Trip to Lisbon", "Unit tests", "Tides")
WORDS = (
    "the", "of", "harbour", "figures", "water", "letter", "each", "month", "first", "answer", "table", "under", "north",
    "wind", "price", "list", "paper",
)  # fmt: skip


def seed_operator(session: Session, company: Company, tier: str, now_ms: int) -> None:
    chance = random.Random(3)
    user = {"id": OPERATOR_ID, "kind": PERSON, "email": OPERATOR_EMAIL, "name": "Ada Lovelace", "is_operator": True}
    never = {"password_hash": None, "disabled_ms": None, "last_login_ms": None}
    session.execute(insert(User), [user | never | {"created_ms": now_ms}])
    member = {"user_id": OPERATOR_ID, "organisation_id": company.id, "role": Role.OWNER.value, "created_ms": now_ms}
    session.execute(insert(Member), [member])
    workspace, key = company.clients[0].workspace, token(chance, 10)
    own = {"id": key, "workspace_id": workspace, "name": "Chat of Ada Lovelace", "owner": OPERATOR_ID}
    free = {"scopes": [INFERENCE], "tiers": None, "networks": [], "created_by": f"user:{OPERATOR_ID}"}
    session.execute(insert(ApiKey), [own | free | {"created_ms": now_ms, "expires_ms": None, "revoked_ms": None}])
    session.execute(insert(ConsoleKey), [{"user_id": OPERATOR_ID, "workspace_id": workspace, "key_id": key}])
    for number in range(CHATS):
        _chat(session, chance, company, workspace, tier, number, now_ms - number * 600 * MINUTE_MS)


def _chat(
    session: Session, chance: random.Random, company: Company, workspace: str, tier: str, number: int, at_ms: int
) -> None:
    count = TURNS_OF_THE_LONGEST if number == 0 else TURNS
    chat = {"id": token(chance), "organisation_id": company.id, "workspace_id": workspace, "user_id": OPERATOR_ID}
    plain = {"system": "", "temperature": None, "top_p": None, "max_tokens": None, "seed": None, "leaf": count}
    titled = {"title": f"{chance.choice(TOPICS)} {number + 1}", "tier": tier, "created_ms": at_ms, "updated_ms": at_ms}
    session.execute(insert(Chat), [chat | plain | titled])
    turns = [
        _turn(chance, chat["id"], tier, place, at_ms - (count - place) * MINUTE_MS) for place in range(1, count + 1)
    ]
    session.execute(insert(Turn), turns)


def _turn(chance: random.Random, chat: str, tier: str, number: int, at_ms: int) -> dict[str, Any]:
    """A question, then its answer, and so on."""
    asks = number % 2 == 1
    words = chance.randint(8, 30) if asks else chance.randint(60, 250)
    return {
        "conversation_id": chat,
        "number": number,
        "parent": number - 1,
        "role": USER if asks else ASSISTANT,
        "content": " ".join(chance.choice(WORDS) for _ in range(words)),
        "tier": tier,
        "prompt_tokens": None if asks else 40,
        "cached_tokens": None if asks else 0,
        "completion_tokens": None if asks else words,
        "cost_nano": None if asks else words * 420,
        "request_id": "" if asks else f"c0{at_ms:012x}{token(chance, 18)}",
        "finish_reason": "" if asks else "stop",
        "note": "",
        "at_ms": at_ms,
    }
