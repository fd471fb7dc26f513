"""Tools listed in the prompt: the call that fits and its arguments, the answer from a result, and no call at all."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from demo.examples import MORE_SHARE, Draw, Example, assistant, corpus, user
from demo.skills.everyday import FACTOR_MAX, fact, greeting, name, unknown

TOOLS_MAX = 3
CALL_ID = "call00001"
NUMBER_MIN, NUMBER_MAX = 2, 30


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool of the corpus as one example lists it; `arguments` says by key what fills each one."""

    entry: Mapping[str, Any]
    name: str
    arguments: Mapping[str, str]

    def specification(self) -> Mapping[str, Any]:
        """As the API takes it."""
        kinds = {key: {"type": "integer" if fill == "number" else "string"} for key, fill in self.arguments.items()}
        parameters = {"type": "object", "properties": kinds, "required": list(kinds)}
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.entry["description"], "parameters": parameters},
        }


def tool_call(draw: Draw) -> Example:
    """Asked, and called."""
    _, _, turns, tools = _called(draw)
    return draw.example("tools", turns, tools=tools, check="calls", domain="json")


def tool_result(draw: Draw) -> Example:
    """Asked, called, told the result, and answered."""
    tool, fills, turns, tools = _called(draw)
    result = draw.choose(tool.entry["results"])
    if result == "product":
        result = str(fills["a"] * fills["b"])
    answer = tool.entry["answer"].format_map({**fills, "r": result})
    told = {"role": "tool", "name": tool.name, "tool_call_id": CALL_ID, "content": result}
    return draw.example("results", [*turns, told, assistant(answer)], tools=tools, domain="json")


def tool_unused(draw: Draw) -> Example:
    """Tools at hand, and a question that needs none of them."""
    tools = [_tool(draw, key) for key in draw.rng.sample(tuple(corpus("tools")), draw.rng.randint(1, 2))]
    if draw.rng.random() < 0.5:
        question, answer, _ = fact(draw)
        turns = [user(question), assistant(answer)]
    else:
        turns = list(draw.choose((greeting, unknown))(draw).messages)
    return draw.example("tools", turns, tools=tuple(tool.specification() for tool in tools))


def _tool(draw: Draw, key: str) -> Tool:
    """Training also gives it another name, and its arguments: for the call to follow the list."""
    entry = corpus("tools")[key]
    if draw.held or draw.rng.random() >= MORE_SHARE:
        return Tool(entry, key, entry["arguments"])
    others = corpus("names")["more_arguments"]
    arguments = {draw.choose(others[usual]): fill for usual, fill in entry["arguments"].items()}
    return Tool(entry, draw.choose((key, *entry["more_names"])), arguments)


def _called(draw: Draw) -> tuple[Tool, dict[str, Any], list[Mapping[str, Any]], tuple[Mapping[str, Any], ...]]:
    """The tool, what fills the phrases, question and call, and the tools listed."""
    keys = draw.rng.sample(tuple(corpus("tools")), draw.rng.randint(1, TOOLS_MAX))
    tools = [_tool(draw, key) for key in keys]
    tool = tools[0]
    fill_kinds = tool.arguments.values()
    values = draw.combination(lambda: (keys[0], *(_value(draw, kind, keys[0]) for kind in fill_kinds)))[1:]
    fills = dict(zip("ab", values, strict=False))
    call = {
        "name": tool.name,
        "arguments": json.dumps(dict(zip(tool.arguments, values, strict=True)), ensure_ascii=False),
    }
    turns = [
        user(draw.phrase(tool.entry, **fills)),
        {"role": "assistant", "content": "", "tool_calls": [{"id": CALL_ID, "type": "function", "function": call}]},
    ]
    draw.rng.shuffle(tools)
    return tool, fills, turns, tuple(one.specification() for one in tools)


def _value(draw: Draw, fill: str, tool: str) -> str | int:
    match fill:
        case "number" if tool == "multiply":
            return draw.rng.randint(2, FACTOR_MAX)
        case "number":
            return draw.rng.randint(NUMBER_MIN, NUMBER_MAX)
        case "name":
            return name(draw)
        case _:
            return draw.fill(corpus("en")["fill"], {"city": "cities", "item": "items"}[fill])
