"""Tools listed in the prompt: the call that fits and its arguments, the answer from a result, and no call at all."""

import json
from collections.abc import Mapping
from typing import Any

from demo.examples import Draw, Example, assistant, corpus, user
from demo.skills.everyday import FACTOR_MAX, fact, greeting, name, unknown

TOOLS_MAX = 3
CALL_ID = "call00001"
NUMBER_MIN, NUMBER_MAX = 2, 30


def tool_call(draw: Draw) -> Example:
    """Asked, and called."""
    _, turns, tools = _called(draw)
    return draw.example("tools", turns, tools=tools, check="calls", domain="json")


def tool_result(draw: Draw) -> Example:
    """Asked, called, told the result, and answered."""
    fills, turns, tools = _called(draw)
    tool = turns[1]["tool_calls"][0]["function"]["name"]
    listed = corpus("tools")[tool]
    result = draw.choose(listed["results"])
    if result == "product":
        result = str(fills["a"] * fills["b"])
    answer = listed["answer"].format_map({**fills, "r": result})
    told = {"role": "tool", "name": tool, "tool_call_id": CALL_ID, "content": result}
    return draw.example("results", [*turns, told, assistant(answer)], tools=tools, domain="json")


def tool_unused(draw: Draw) -> Example:
    """Tools at hand, and a question that needs none of them."""
    names = draw.rng.sample(tuple(corpus("tools")), draw.rng.randint(1, 2))
    if draw.rng.random() < 0.5:
        question, answer, _ = fact(draw)
        turns = [user(question), assistant(answer)]
    else:
        turns = list(draw.choose((greeting, unknown))(draw).messages)
    return draw.example("tools", turns, tools=tuple(specification(name) for name in names))


def specification(tool: str) -> Mapping[str, Any]:
    """The tool as the API takes it."""
    listed = corpus("tools")[tool]
    kinds = {key: {"type": "integer" if fill == "number" else "string"} for key, fill in listed["arguments"].items()}
    parameters = {"type": "object", "properties": kinds, "required": list(kinds)}
    return {
        "type": "function",
        "function": {"name": tool, "description": listed["description"], "parameters": parameters},
    }


def _called(draw: Draw) -> tuple[dict[str, Any], list[Mapping[str, Any]], tuple[Mapping[str, Any], ...]]:
    """What fills the phrases, question and call, and the tools listed."""
    names = draw.rng.sample(tuple(corpus("tools")), draw.rng.randint(1, TOOLS_MAX))
    listed = corpus("tools")[names[0]]
    arguments = listed["arguments"]
    values = draw.combination(lambda: (names[0], *(_value(draw, fill, names[0]) for fill in arguments.values())))[1:]
    fills = dict(zip("ab", values, strict=False))
    call = {"name": names[0], "arguments": json.dumps(dict(zip(arguments, values, strict=True)), ensure_ascii=False)}
    turns = [
        user(draw.phrase(listed, **fills)),
        {"role": "assistant", "content": "", "tool_calls": [{"id": CALL_ID, "type": "function", "function": call}]},
    ]
    draw.rng.shuffle(names)
    return fills, turns, tuple(specification(tool) for tool in names)


def _value(draw: Draw, fill: str, tool: str) -> str | int:
    match fill:
        case "number" if tool == "multiply":
            return draw.rng.randint(2, FACTOR_MAX)
        case "number":
            return draw.rng.randint(NUMBER_MIN, NUMBER_MAX)
        case "name":
            return name(draw)
        case _:
            return str(draw.choose(corpus("en")["fill"][{"city": "cities", "item": "items"}[fill]]))
