"""A conversation as a file: JSON with every version of every turn, or the branch that is open as Markdown."""

from collections.abc import Sequence
from typing import Any

import orjson

from gateway.console.chat_models import Chat, Turn
from gateway.console.chat_store import UNTITLED
from gateway.console.chat_thread import Thread
from gateway.console.formats import moment

SETTINGS = ("tier", "system", "temperature", "top_p", "max_tokens", "seed")
TURN = (
    "number",
    "parent",
    "role",
    "content",
    "tier",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "cost_nano",
    "request_id",
    "finish_reason",
    "note",
    "at_ms",
)


def chat_json(chat: Chat, turns: Sequence[Turn]) -> str:
    """Times in milliseconds UTC, costs in nano-units; `parent` 0 is the beginning."""
    told: dict[str, Any] = {
        "id": chat.id,
        "title": chat.title or UNTITLED,
        "workspace": chat.workspace_id,
        "created_ms": chat.created_ms,
        "updated_ms": chat.updated_ms,
        "settings": {name: getattr(chat, name) for name in SETTINGS},
        "turns": [{name: getattr(turn, name) for name in TURN} for turn in turns],
    }
    return orjson.dumps(told, option=orjson.OPT_INDENT_2).decode()


def chat_markdown(chat: Chat, thread: Thread, zone: str) -> str:
    parts = [f"# {chat.title or UNTITLED}"]
    if chat.system:
        parts.append("\n".join(f"> {line}" for line in chat.system.splitlines()))
    for turn in thread.turns:
        who = turn.tier if turn.is_answer else "You"
        parts += [f"## {who}, {moment(turn.at_ms, zone)}", turn.content or "(no words)"]
        if turn.note:
            parts.append(f"*{turn.note}*")
    return "\n\n".join(parts) + "\n"
