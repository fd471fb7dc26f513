"""Tool calls on their way out: text is held back only while it may be a call, and calls are told whole."""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

from core.ids import tool_call_id
from core.tools import MARKER, ToolCalls, split_tool_calls
from core.wire import TokenLogprob
from gateway.replies import Delta

HELD_CHARS_MAX = 262_144


def call_entries(request_id: str, choice: int, calls: ToolCalls) -> list[dict[str, Any]]:
    """As both generations of clients want them: `arguments` is a JSON string."""
    return [
        {
            "id": tool_call_id(request_id, choice, index),
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
            "index": index,
        }
        for index, call in enumerate(calls.calls)
    ]


class _State(Enum):
    OPEN = auto()  # so far it may become the marker
    CALL = auto()  # it began with the marker
    TEXT = auto()


class ToolHold:
    """The text of one choice of a request with tools. A call longer than the bound is passed on as the text it is."""

    def __init__(self, choice: int) -> None:
        self._choice = choice
        self._state = _State.OPEN
        self._texts: list[str] = []
        self._chars = 0
        self._token_count = 0
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []

    def put(self, delta: Delta) -> Delta | None:
        """What may go out now."""
        if self._state is _State.TEXT:
            return delta
        self._texts.append(delta.text)
        self._chars += len(delta.text)
        self._token_count += delta.token_count
        self._token_ids += delta.token_ids
        self._logprobs += delta.logprobs
        if self._state is _State.OPEN:
            text = "".join(self._texts).lstrip()
            if text.startswith(MARKER):
                self._state = _State.CALL
            elif not MARKER.startswith(text):
                return self.release()
        return self.release() if self._chars > HELD_CHARS_MAX else None

    def calls(self) -> ToolCalls | None:
        """The choice has ended: what was held, if it is well-formed calls."""
        return split_tool_calls("".join(self._texts)) if self._state is _State.CALL else None

    def release(self) -> Delta | None:
        """All that was held, as text; from now on everything goes out at once."""
        self._state = _State.TEXT
        if not self._texts:
            return None
        held = Delta(
            self._choice,
            "".join(self._texts),
            self._token_count,
            tuple(self._token_ids),
            tuple(self._logprobs),
        )
        self._texts.clear()
        return held

    @property
    def logprobs(self) -> tuple[Sequence[int], Sequence[TokenLogprob]]:
        """Of the tokens that are held."""
        return self._token_ids, self._logprobs
