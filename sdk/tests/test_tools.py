import enum
from typing import Any, Dict, List, Literal, Optional, Union

import pytest
from pydantic import BaseModel

from tramontane._calling import call_tool, call_tool_async
from tramontane.errors import TooManyRounds
from tramontane.types import ChatCompletion
from tramontane.wire.decode import decode
from tramontane.wire.schemas import arguments_of, parameters_of, schema_of, strict, value_of
from tramontane.wire.tools import Tool, ToolError, ToolLoop, tool_of

USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Place(BaseModel):
    name: str
    height_m: int = 0


def sky(place: str, hour: int = 12) -> str:
    """The colour of the sky."""
    return f"{place} {hour}"


def answer(*calls, content=""):
    entries = [
        {"id": f"call0000{index}", "function": {"name": name, "arguments": arguments}}
        for index, (name, arguments) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": content, "tool_calls": entries or None}
    return decode(
        ChatCompletion, {"id": "i", "model": "m", "choices": [{"index": 0, "message": message}], "usage": USAGE}
    )


@pytest.mark.parametrize(
    ("kind", "schema", "good", "bad"),
    [
        (str, {"type": "string"}, "a", 1),
        (int, {"type": "integer"}, 1, True),
        (float, {"type": "number"}, 1.5, "1"),
        (bool, {"type": "boolean"}, True, 1),
        (type(None), {"type": "null"}, None, 0),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}, None, "x"),
        (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}, "x", 1.5),
        (Literal["a", 2], {"enum": ["a", 2]}, 2, 3),
        (List[int], {"type": "array", "items": {"type": "integer"}}, [1, 2], [1, "x"]),
        (list[int], {"type": "array", "items": {"type": "integer"}}, [], {}),
        (Dict[str, bool], {"type": "object", "additionalProperties": {"type": "boolean"}}, {"a": True}, {"a": 1}),
    ],
)
def test_types_are_schemas_and_values_are_checked(kind, schema, good, bad):
    assert schema_of(kind) == schema
    assert value_of(kind, good) == good
    with pytest.raises((TypeError, ValueError)):
        value_of(kind, bad)


def test_richer_types():
    assert schema_of(Colour) == {"enum": ["red", "blue"]}
    assert value_of(Colour, "red") is Colour.RED
    assert schema_of(Place)["required"] == ["name", "height_m"]
    assert value_of(Place, {"name": "Rome"}) == Place(name="Rome")
    assert type(value_of(float, 1)) is float
    assert value_of(List[Colour], ["blue"]) == [Colour.BLUE]


@pytest.mark.parametrize("kind", [Any, object, bytes, Dict[int, str], tuple, List[bytes]])
def test_types_that_json_cannot_say(kind):
    with pytest.raises(TypeError, match="no JSON schema"):
        schema_of(kind)


def test_strict_schemas_have_all_properties_and_no_others():
    loose = {
        "title": "Shelf",
        "$defs": {"title": {"properties": {"title": {"type": "string", "title": "Title"}}, "type": "object"}},
        "properties": {"books": {"type": "array", "items": [{"$ref": "#/$defs/title"}], "default": []}},
    }
    assert strict(loose) == {
        "$defs": {
            "title": {
                "properties": {"title": {"type": "string"}},
                "type": "object",
                "required": ["title"],
                "additionalProperties": False,
            }
        },
        "properties": {"books": {"type": "array", "items": [{"$ref": "#/$defs/title"}]}},
        "required": ["books"],
        "additionalProperties": False,
    }


def test_a_function_becomes_a_tool():
    tool = tool_of(sky)
    assert tool_of(tool) is tool
    assert tool.to_wire()["function"] == {
        "name": "sky",
        "description": "The colour of the sky.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "hour": {"type": "integer"}},
            "required": ["place"],
            "additionalProperties": False,
        },
    }
    assert tool_of(lambda: 1).description == ""
    with pytest.raises(TypeError, match="a tool is a function"):
        tool_of({"type": "function"})


def test_functions_that_no_model_can_call():
    def untyped(place):
        return place

    def many(*places: str):
        return places

    with pytest.raises(TypeError, match="has no type"):
        parameters_of(untyped)
    with pytest.raises(TypeError, match="cannot be named"):
        parameters_of(many)


def test_arguments_fit_the_function():
    assert arguments_of(sky, {"place": "Rome"}) == {"place": "Rome"}
    for wrong in ({}, {"place": 1}, {"place": "a", "month": 1}, ["Rome"], None):
        with pytest.raises(TypeError):
            arguments_of(sky, wrong)


def test_a_conversation_with_tools():
    loop = ToolLoop([{"role": "user", "content": "?"}], [sky], tool_choice="any")
    assert loop.begin() == {"tools": [tool_of(sky)], "tool_choice": "any"}
    invocations = loop.take(answer(("sky", '{"place": "Rome"}'), ("sky", '{"place": "Oslo", "hour": 3}')))
    for invocation in invocations:
        loop.answer(invocation, call_tool(invocation))
    assert loop.begin()["tool_choice"] == "auto"  # what is forced is forced once
    assert loop.take(answer(content="Blue.")) == []
    run = loop.ended(answer(content="Blue."))
    assert (run.rounds, run.content) == (2, "Blue.")
    assert [message["role"] for message in run.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert run.messages[3] == {"role": "tool", "tool_call_id": "call00001", "name": "sky", "content": "Oslo 3"}


@pytest.mark.parametrize(
    ("first", "later", "expected"),
    [("auto", None, "auto"), (None, None, None), ("required", "none", "none"), ({"type": "function"}, None, "auto")],
)
def test_later_rounds(first, later, expected):
    loop = ToolLoop([], [sky], tool_choice=first, later_choice=later)
    assert loop.begin()["tool_choice"] == first
    assert loop.begin()["tool_choice"] == expected


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("sea", "{}", "error: there is no tool 'sea'"),
        ("sky", "{", "error: these arguments do not fit: "),
        ("sky", "[]", "error: these arguments do not fit: the arguments are no object"),
        ("sky", "", "error: these arguments do not fit: missing"),
        ("sky", '{"place": 7}', "error: these arguments do not fit: 7 is no str"),
    ],
)
def test_calls_that_cannot_be_run_are_told_to_the_model(name, arguments, told):
    (invocation,) = ToolLoop([], [sky]).take(answer((name, arguments)))
    assert call_tool(invocation).startswith(told)


def test_what_a_tool_returns_becomes_text():
    loop = ToolLoop([], [sky])
    (invocation,) = loop.take(answer(("sky", '{"place": "a"}')))
    loop.answer(invocation, {"é": [1, Colour.RED]})
    assert loop.messages[-1]["content"] == '{"é": [1, "Colour.RED"]}'


def test_rounds_are_bounded():
    loop = ToolLoop([], [sky], rounds_max=1)
    loop.begin()
    loop.take(answer(("sky", "{}")))
    with pytest.raises(TooManyRounds) as caught:
        loop.begin()
    assert len(caught.value.messages) == 1
    with pytest.raises(ValueError, match="at least 1"):
        ToolLoop([], [sky], rounds_max=0)
    with pytest.raises(ValueError, match="same name"):
        ToolLoop([], [sky, sky])


def invocation_of(function):
    tool = Tool("f", "", {}, function)
    (found,) = ToolLoop([], [tool]).take(answer(("f", "{}")))
    return found


def failing() -> str:
    raise ToolError("closed today")


def broken() -> str:
    raise ZeroDivisionError


async def slow() -> str:
    return "done"


async def slowly_failing() -> str:
    raise ToolError("closed today")


async def test_running_tools():
    assert call_tool(invocation_of(failing)) == "error: closed today"
    assert await call_tool_async(invocation_of(failing)) == "error: closed today"
    assert await call_tool_async(invocation_of(slow)) == "done"
    assert await call_tool_async(invocation_of(slowly_failing)) == "error: closed today"
    assert await call_tool_async(invocation_of(lambda: "now")) == "now"
    for run in (call_tool, call_tool_async):
        with pytest.raises(ZeroDivisionError):
            await run(invocation_of(broken))
    with pytest.raises(TypeError, match="AsyncTramontane"):
        call_tool(invocation_of(slow))
    (unknown,) = ToolLoop([], [sky]).take(answer(("sea", "{}")))
    assert await call_tool_async(unknown) == "error: there is no tool 'sea'"
