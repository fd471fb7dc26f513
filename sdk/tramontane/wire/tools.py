"""Tools: Python functions that a model may ask for, and the conversation in which it does."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from tramontane.errors import TooManyRounds
from tramontane.types import AssistantMessage, ChatCompletion, ToolCall
from tramontane.wire.schemas import arguments_of, parameters_of

ToolLike = Union["Tool", Callable[..., Any], Mapping[str, Any]]
ROUNDS_MAX = 10
FORCED = frozenset({"any", "required"})


class ToolError(Exception):
    """Raised by a tool to tell the model what went wrong; every other exception ends the conversation."""


@dataclass(frozen=True)
class Tool:
    """`parameters` is a JSON schema; `function` is called with what the model wrote, by name."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    function: Callable[..., Any]

    def to_wire(self) -> Dict[str, Any]:
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


def tool_of(source: Any) -> Tool:
    """From a function with types: its name, its docstring and its arguments. Raises TypeError."""
    if isinstance(source, Tool):
        return source
    if not callable(source):
        raise TypeError("a tool is a function, a Tool, or a mapping as the API takes it")
    name: str = source.__name__
    return Tool(name, inspect.getdoc(source) or "", parameters_of(source), source)


@dataclass(frozen=True)
class ToolRun:
    """How a conversation with tools ended: the last answer, every message with it, and how many answers it took."""

    completion: ChatCompletion
    messages: Tuple[Mapping[str, Any], ...]
    rounds: int

    @property
    def content(self) -> str:
        return self.completion.choices[0].message.content or ""


@dataclass(frozen=True)
class Invocation:
    """One call of a model. `problem`: it cannot be run, and this is what the model is told."""

    call: ToolCall
    tool: Optional[Tool]
    arguments: Mapping[str, Any]
    problem: str = ""


class ToolLoop:
    """Ask, run what was called, ask again, until an answer calls nothing. A tool that is forced is forced once: later
    rounds ask with `later_choice`.
    """

    def __init__(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any],
        *,
        tool_choice: Any = None,
        later_choice: Any = None,
        rounds_max: int = ROUNDS_MAX,
    ) -> None:
        if rounds_max < 1:
            raise ValueError("rounds_max is at least 1")
        made = [tool_of(tool) for tool in tools]
        self.tools = {tool.name: tool for tool in made}
        if len(self.tools) < len(made):
            raise ValueError("two tools have the same name")
        self.messages: List[Mapping[str, Any]] = list(messages)
        self.rounds = 0
        self._tool_choice = tool_choice
        is_forced = isinstance(tool_choice, Mapping) or tool_choice in FORCED
        self._later_choice = later_choice if later_choice is not None else ("auto" if is_forced else tool_choice)
        self._rounds_max = rounds_max

    def begin(self) -> Dict[str, Any]:
        """The options of the next request. Raises TooManyRounds."""
        if self.rounds >= self._rounds_max:
            raise TooManyRounds(self._rounds_max, tuple(self.messages))
        choice = self._later_choice if self.rounds else self._tool_choice
        self.rounds += 1
        return {"tools": list(self.tools.values()), "tool_choice": choice}

    def take(self, completion: ChatCompletion) -> List[Invocation]:
        """What the answer calls; nothing: it is the last."""
        message: AssistantMessage = completion.choices[0].message
        self.messages.append(message.to_message())
        return [self._invocation(call) for call in message.tool_calls or ()]

    def answer(self, invocation: Invocation, result: Any) -> None:
        """What a tool returned: a text as it is, anything else as JSON."""
        content = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
        name, call_id = invocation.call.function.name, invocation.call.id
        self.messages.append({"role": "tool", "tool_call_id": call_id, "name": name, "content": content})

    def ended(self, completion: ChatCompletion) -> ToolRun:
        return ToolRun(completion, tuple(self.messages), self.rounds)

    def _invocation(self, call: ToolCall) -> Invocation:
        tool = self.tools.get(call.function.name)
        if tool is None:
            return Invocation(call, None, {}, f"error: there is no tool {call.function.name!r}")
        try:
            given = json.loads(call.function.arguments or "{}")
            return Invocation(call, tool, arguments_of(tool.function, given))
        except (TypeError, ValueError, KeyError) as error:
            return Invocation(call, tool, {}, f"error: these arguments do not fit: {error}")
