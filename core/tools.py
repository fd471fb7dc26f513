"""Tools in a conversation: how a tokenizer without tool tokens is told of them, and how calls are read in an answer.

Tokenizers v2, v3 and v7 have control tokens for tools, and mistral-common writes them. v1 has none, so the same form is
written as text, which the template's turns carry (docs/api.md, "Tools"):

    [INST] [AVAILABLE_TOOLS] [{"name": "sky", "parameters": {...}}] [/AVAILABLE_TOOLS]
    (blank line) the system's text (blank line) What colour is the sky? [/INST]
    [TOOL_CALLS] [{"name": "sky", "arguments": {}}]</s>
    [INST] [TOOL_RESULTS] {"name": "sky", "content": "blue"} [/TOOL_RESULTS] [/INST]
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mistral_common.protocol.instruct.messages import (
    AssistantMessage,
    ChatMessage,
    SystemMessage,
    ToolMessage,
    UserMessage,
)

MARKER = "[TOOL_CALLS]"
CALLS_MAX = 32

# What stands for itself in a prompt of v1: text that holds one would end its own turn, or speak for a tool. A space
# behind the bracket makes other ids of it and reads the same.
_TEXT_MARKER = re.compile(r"\[(?=/?(?:INST|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS)\])")


@dataclass(frozen=True, slots=True)
class ToolForm:
    """How calls are written in an answer: behind `marker`, a control token of the vocabulary or, with None, text."""

    marker: str
    token_id: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """`arguments` is a JSON object as text, as the API hands it out."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """An answer that calls tools. `content` is what was said before; the prompt forms here have none."""

    content: str
    calls: tuple[Call, ...]


def split_tool_calls(text: str) -> ToolCalls | None:
    """None for an answer without calls, and for one whose calls are malformed or cut off: then it is plain text."""
    stripped = text.strip()
    if not stripped.startswith(MARKER):
        return None
    try:
        raw = json.loads(stripped.removeprefix(MARKER))
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, list) or not 0 < len(raw) <= CALLS_MAX:
        return None
    calls = [_call(entry) for entry in raw]
    return None if None in calls else ToolCalls("", tuple(call for call in calls if call is not None))


def neutral(text: str) -> str:
    """The text without any marker of the v1 forms in it."""
    return _TEXT_MARKER.sub("[ ", text)


def as_text_turns(turns: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]) -> list[ChatMessage]:
    """The same conversation without tool messages, for a template that has none: their form is text in its turns."""
    out: list[ChatMessage] = []
    calls: dict[str, tuple[int, str]] = {}  # by id: place in its message, name
    results: list[ToolMessage] = []
    if tools:
        listed = _json([_listed(tool["function"]) for tool in tools])
        out.append(SystemMessage(content=f"[AVAILABLE_TOOLS] {listed} [/AVAILABLE_TOOLS]"))
    for turn in turns:
        if isinstance(turn, ToolMessage):
            results.append(turn)
            continue
        out += _told(results, calls)
        results.clear()
        if isinstance(turn, AssistantMessage) and turn.tool_calls:
            calls = {call.id: (index, call.function.name) for index, call in enumerate(turn.tool_calls)}
            made = [
                {"name": call.function.name, "arguments": _parsed(call.function.arguments)} for call in turn.tool_calls
            ]
            out.append(AssistantMessage(content=f"{MARKER} {_json(made)}"))
        else:
            out.append(turn)
    return out + _told(results, calls)


def _told(results: Sequence[ToolMessage], calls: Mapping[str, tuple[int, str]]) -> list[UserMessage]:
    """In the order of the calls, whatever order the caller has."""
    by_place = list(calls.values())
    told: list[tuple[int, str]] = []
    for index, result in enumerate(results):
        fallback = by_place[index] if index < len(by_place) else (index, result.name or "")
        place, name = calls.get(result.tool_call_id or "", fallback)
        content = _parsed(_text(result))
        told.append(
            (place, f"[TOOL_RESULTS] {_json({'name': result.name or name, 'content': content})} [/TOOL_RESULTS]")
        )
    return [UserMessage(content=text) for _, text in sorted(told, key=lambda entry: entry[0])]


def _listed(function: Mapping[str, Any]) -> dict[str, Any]:
    described = {"description": function["description"]} if function.get("description") else {}
    return {"name": function["name"], **described, "parameters": function["parameters"]}


def _text(message: ToolMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(getattr(chunk, "text", "") for chunk in message.content)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _json(value: Any) -> str:
    return neutral(json.dumps(value, ensure_ascii=False))


def _call(entry: Any) -> Call | None:
    if not isinstance(entry, dict):
        return None
    name, arguments = entry.get("name"), entry.get("arguments")
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return Call(name, json.dumps(arguments, ensure_ascii=False))
