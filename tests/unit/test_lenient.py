import json

import pytest

from core.catalog import Tier
from core.errors import BAD_REQUEST, VALIDATION, PlatformError
from core.tokens import ChatTokenizer
from gateway.schemas.chat import ChatCompletionRequest, to_chat_request
from gateway.schemas.embeddings import EmbeddingRequest
from gateway.schemas.fim import FIMCompletionRequest
from gateway.schemas.lenient import NAMES_MAX, lenient, read_body
from gateway.schemas.mode import Mode, mode_of

USER = {"role": "user", "content": "Hello"}
BASE = {"model": "t", "messages": [USER]}
TIER = Tier(name="t", engine="echo", weights="none", context_tokens=64, price={"input": "1"})


def read(model=ChatCompletionRequest, **fields):
    return read_body(model, json.dumps({**BASE, **fields}).encode(), Mode.LENIENT)


def turns(*messages):
    asked, ignored = read(messages=list(messages))
    return [message.model_dump(exclude_none=True, exclude_defaults=True) for message in asked.messages], ignored


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5, "max_tokens": 7}, {"max_tokens": 7}),
        ({"max_completion_tokens": 5, "max_tokens": None}, {"max_tokens": 5}),
        ({"seed": 5}, {"random_seed": 5}),
        ({"seed": -1}, {"random_seed": 2**63 - 1}),
        ({"stream": None, "n": None, "tool_choice": None, "safe_prompt": None}, {"stream": False, "n": None}),
        ({"service_tier": "default"}, {"service_tier": None}),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
    ],
)
def test_what_means_the_same_is_renamed_and_not_named(given, meant):
    asked, ignored = read(**given)
    assert {name: getattr(asked, name) for name in meant} == meant
    assert ignored == ()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"user": "u", "store": False, "logit_bias": {}}, {"user", "store", "logit_bias"}),
        ({"service_tier": "flex"}, {"service_tier"}),
        ({"service_tier": ["flex"]}, {"service_tier"}),
        ({"temperature": 0, "top_p": 0.9}, {"top_p"}),
        ({"messages": [{**USER, "name": "Ann"}]}, {"messages.name"}),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {}}]}]},
         {"messages.content.cache_control"}),
        ({"tools": [{"type": "function", "x": 1, "function": {"name": "f", "y": 2}}]}, {"tools.x", "tools.function.y"}),
        ({"response_format": {"type": "json_schema", "x": 1, "json_schema": {"name": "n", "schema": {}, "y": 2}}},
         {"response_format.x", "response_format.json_schema.y"}),
        ({"tool_choice": {"type": "function", "x": 1, "function": {"name": "f", "y": 2}}},
         {"tool_choice.x", "tool_choice.function.y"}),
    ],
)  # fmt: skip
def test_what_is_left_out_is_named(given, named):
    assert set(read(**given)[1]) == named


def test_a_stream_options_is_known_and_stays():
    asked, ignored = read(stream_options={"include_usage": True})
    assert (asked.stream_options, ignored) == ({"include_usage": True}, ())


def test_names_are_bounded_and_safe_in_a_header():
    _, ignored = read(**{f"x\r\n{index}é{'y' * 100}": 1 for index in range(NAMES_MAX + 9)})
    assert len(ignored) == NAMES_MAX
    for name in ignored:
        assert len(name) <= 64
        assert name.isascii()
        assert name.isprintable()


def test_the_developer_speaks_as_the_system():
    assert turns({"role": "developer", "content": "x"}, USER)[0][0] == {"role": "system", "content": "x"}


def test_what_an_answer_brought_along_may_come_back():
    echoed = {
        "role": "assistant",
        "content": "Hi",
        "reasoning_content": "hm",
        "finish_reason": "stop",
        "refusal": None,
        "function_call": None,
        "annotations": [],
    }
    found, ignored = turns(USER, echoed, USER)
    assert found[1] == {"role": "assistant", "content": "Hi"}
    assert set(ignored) == {"messages.reasoning_content", "messages.finish_reason", "messages.annotations"}


@pytest.mark.parametrize("empty", [{"content": ""}, {"content": None}, {}, {"content": "", "tool_calls": []}])
def test_an_empty_answer_is_dropped(empty):
    assert turns(USER, {"role": "assistant", **empty}, USER)[0] == [USER, USER]


def call(*ids):
    calls = [{"id": identity, "type": "function", "function": {"name": "f", "arguments": "{}"}} for identity in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(identity):
    return {"role": "tool", "content": "x", "tool_call_id": identity}


def pairs(found):
    calls = [entry["id"] for turn in found for entry in turn.get("tool_calls", ())]
    return calls, [turn["tool_call_id"] for turn in found if turn["role"] == "tool"]


def test_ids_of_another_shape_become_nine_letters_and_stay_the_same():
    long = ("call_" + "x" * 24, "call_" + "y" * 24)
    calls, results = pairs(turns(USER, call(*long), result(long[1]), result(long[0]))[0])
    assert results == calls[::-1]
    assert all(len(identity) == 9 and identity.isalnum() for identity in calls)
    assert pairs(turns(USER, call(*long), result(long[1]), result(long[0]), USER)[0])[0] == calls


def test_an_id_of_the_right_shape_is_kept():
    assert pairs(turns(USER, call("abcdefghi"), result("abcdefghi"))[0]) == (["abcdefghi"], ["abcdefghi"])


@pytest.mark.parametrize("missing", [None, "", "null"])
def test_missing_ids_are_made_and_matched_in_order(missing):
    calls, results = pairs(turns(USER, call(missing, missing), result(missing), result(missing))[0])
    assert calls == results
    assert len(set(calls)) == 2


def test_a_mended_conversation_passes_the_rules_of_a_tokenizer_with_ids():
    asked, _ = read(messages=[USER, call(None, "call_1"), result("call_1"), result(None), USER])
    assert ChatTokenizer.load("v3").encode_chat(to_chat_request(asked, TIER).messages)


def test_a_tool_without_parameters_or_description():
    asked, ignored = read(tools=[{"type": "function", "function": {"name": "f", "description": None, "strict": None}}])
    assert asked.tools[0].function.parameters == {"type": "object", "properties": {}}
    assert ignored == ()


def test_other_bodies():
    asked, ignored = read_body(EmbeddingRequest, b'{"model":"e","input":"x","user":"u","dimensions":8}', Mode.LENIENT)
    assert (asked.output_dimension, ignored) == (8, ("user",))
    body = b'{"model":"f","prompt":"x","max_completion_tokens":3,"user":"u"}'
    filled, ignored = read_body(FIMCompletionRequest, body, Mode.LENIENT)
    assert (filled.max_tokens, ignored) == (3, ("user",))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"model":NaN}',
        b'{"a":"\xff"}',
        b"[" * 100_000,
        b'{"metadata":' + b'{"a":' * 400 + b"1" + b"}" * 401,
        b'{"model":"t"}',
        b'{"model":"t","messages":[1]}',
        b'{"model":"t","messages":[{"role":[]}]}',
    ],
)
def test_junk_is_a_422_here_too(body):
    with pytest.raises(PlatformError) as caught:
        read_body(ChatCompletionRequest, body, Mode.LENIENT)
    assert caught.value.kind == VALIDATION
    assert caught.value.details


def test_a_known_field_still_has_to_be_right():
    with pytest.raises(PlatformError) as caught:
        read(temperature="hot")
    assert [entry["loc"] for entry in caught.value.details] == [["body", "temperature"]]


def test_the_body_that_was_given_stays_as_it_is():
    body = {**BASE, "messages": [call("x"), {**USER, "name": "n"}], "seed": 1}
    before = json.dumps(body)
    lenient(ChatCompletionRequest, body)
    assert json.dumps(body) == before


def test_strict_reading_leaves_nothing_out():
    with pytest.raises(PlatformError):
        read_body(ChatCompletionRequest, json.dumps({**BASE, "user": "u"}).encode(), Mode.STRICT)
    assert read_body(ChatCompletionRequest, json.dumps(BASE).encode(), Mode.STRICT)[1] == ()


@pytest.mark.parametrize(
    ("asked", "workspace", "mode"),
    [
        (None, False, Mode.STRICT),
        (None, True, Mode.LENIENT),
        ("strict", True, Mode.STRICT),
        (" Lenient ", False, Mode.LENIENT),
    ],
)
def test_the_header_wins_over_the_workspace(asked, workspace, mode):
    assert mode_of(asked, workspace) is mode


def test_another_mode_is_refused():
    with pytest.raises(PlatformError) as caught:
        mode_of("loose", lenient=False)
    assert caught.value.kind == BAD_REQUEST
