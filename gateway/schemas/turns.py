"""Saved conversations that Mistral's rules would refuse, mended: empty answers, and tool call ids of other shapes."""

import re
from typing import Any

from core.ids import tool_call_id

_CALL_ID = re.compile(r"[a-zA-Z0-9]{9}")
_NO_ID = "null"


def mend_turns(turns: list[Any]) -> list[Any]:
    """Without assistant turns that say nothing. Ids of calls get nine letters or digits, the same for the same id; a
    missing one gets one of its place, and a result without one belongs to the first call without a result.
    """
    out: list[Any] = []
    unanswered: list[str] = []
    for index, turn in enumerate(turns):
        if not isinstance(turn, dict):
            out.append(turn)
            continue
        if turn.get("role") == "assistant":
            if not (turn.get("content") or turn.get("tool_calls") or turn.get("prefix")):
                continue
            unanswered = _mend_calls(turn, index)
        elif turn.get("role") == "tool":
            _mend_result(turn, unanswered, index)
        out.append(turn)
    return out


def _mend_calls(turn: dict[str, Any], index: int) -> list[str]:
    calls = turn.get("tool_calls")
    if not isinstance(calls, list):
        return []
    known: list[str] = []
    for place, call in enumerate(calls):
        if isinstance(call, dict):
            call["id"] = _short(call.get("id"), f"{index}.{place}")
            known.append(call["id"])
    return known


def _mend_result(turn: dict[str, Any], unanswered: list[str], index: int) -> None:
    given = turn.get("tool_call_id")
    if given in (None, "", _NO_ID) and unanswered:
        turn["tool_call_id"] = unanswered.pop(0)
        return
    turn["tool_call_id"] = mended = _short(given, f"{index}")
    if mended in unanswered:
        unanswered.remove(mended)


def _short(given: Any, place: str) -> Any:
    """What is no text stays as it is, for the schema to refuse."""
    if given in (None, "", _NO_ID):
        return tool_call_id(place, 0, 0)
    if not isinstance(given, str) or _CALL_ID.fullmatch(given):
        return given
    return tool_call_id(given, 0, 0)
