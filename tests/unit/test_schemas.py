import json

import pytest

from core.catalog import Tier
from core.errors import INVALID_ARGUMENTS, VALIDATION, PlatformError
from gateway.requests import Choice, JsonAnswer, ToolUse
from gateway.schemas import chat, embeddings
from gateway.schemas.chat import REFUSED, UNUSED, ChatCompletionRequest, asking, to_chat_request
from gateway.schemas.embeddings import EmbeddingRequest
from gateway.schemas.fim import FIMCompletionRequest, to_fim_request
from gateway.schemas.parsing import parse

TIER = Tier(name="t", engine="echo", weights="none", context_tokens=64, price={"input": "1"})
EMBED = Tier(
    name="e", kind="embed", engine="hash", weights="none", context_tokens=64, dimensions=8, price={"input": "1"}
)
USER = {"role": "user", "content": "Hello"}


def chat_body(**fields):
    return json.dumps({"model": "t", "messages": [USER], **fields}).encode()


def refused(body):
    with pytest.raises(PlatformError) as caught:
        parse(ChatCompletionRequest, body)
    assert caught.value.kind == VALIDATION
    return caught.value.details


@pytest.mark.parametrize(
    "fields",
    [
        # What stock clients send on every call.
        {"stream": False, "safe_prompt": False, "tool_choice": "auto", "temperature": 0.7, "top_p": 1.0},
        {"tools": None, "response_format": {"type": "text"}, "parallel_tool_calls": True, "prompt_mode": None},
        {"tools": [], "tool_choice": "none", "guardrails": [], "logprobs": False, "reasoning_effort": "none"},
        {"prediction": {"type": "content", "content": ""}, "stream_options": {"include_usage": True}, "top_k": None},
        {"stop": "x", "n": 2, "random_seed": 0, "presence_penalty": -2, "metadata": {"a": {"b": [1, None]}}},
        {"stop": ["x", "y"], "max_tokens": 5, "min_tokens": 1, "service_tier": "auto", "prompt_cache_key": "k"},
        {"messages": [{"role": "system", "content": [{"type": "text", "text": "a"}]}, USER]},
        {"messages": [USER, {"role": "assistant", "content": "Hi", "prefix": True}]},
        {"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}]},
        {"messages": [USER, {"role": "tool", "content": None, "tool_call_id": "a", "name": "f"}]},
    ],
)
def test_neutral_and_served_fields_pass(fields):
    asked = parse(ChatCompletionRequest, chat_body(**fields))
    chat.refuse_unserved(asked)
    assert to_chat_request(asked, TIER).messages


ASKED_FOR = {
    "prompt_mode": "reasoning",
    "reasoning_effort": "high",
    "guardrails": [{"block_on_error": True}],
    "prompt_logprobs": True,
    "top_prompt_logprobs": 1,
}
DOING_NOTHING = {
    "metadata": {"a": 1},
    "prompt_cache_key": "k",
    "service_tier": "auto",
    "stream_options": {"include_usage": True},
    "prediction": {"type": "content", "content": "x"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_served_is_refused_by_name(name):
    asked = parse(ChatCompletionRequest, chat_body(**{name: ASKED_FOR[name]}))
    with pytest.raises(PlatformError) as caught:
        chat.refuse_unserved(asked)
    assert (caught.value.kind, caught.value.param) == (INVALID_ARGUMENTS, name)


@pytest.mark.parametrize("name", UNUSED)
def test_what_does_nothing_is_named(name):
    asked = parse(ChatCompletionRequest, chat_body(**{name: DOING_NOTHING[name]}))
    chat.refuse_unserved(asked)
    assert asking(asked, UNUSED) == (name,)
    assert asking(parse(ChatCompletionRequest, chat_body(**{name: None})), UNUSED) == ()


@pytest.mark.parametrize(
    ("fields", "kind", "loc"),
    [
        ({"user": "x"}, "extra_forbidden", ["body", "user"]),
        ({"messages": [{**USER, "name": "x"}]}, "extra_forbidden", ["body", "messages", 0, "user", "name"]),
        ({"messages": [{"role": "developer", "content": "x"}]}, "union_tag_invalid", ["body", "messages", 0]),
        ({"messages": [{"role": "user"}]}, "missing", ["body", "messages", 0, "user", "content"]),
        ({"temperature": 1.6}, "less_than_equal", ["body", "temperature"]),
        ({"temperature": float("nan")}, "finite_number", ["body", "temperature"]),
        ({"temperature": "0.5"}, "float_type", ["body", "temperature"]),
        ({"metadata": {"a": [float("inf")]}}, "value_error", ["body", "metadata"]),
        ({"stream": "true"}, "bool_type", ["body", "stream"]),
        ({"n": 0}, "greater_than_equal", ["body", "n"]),
        ({"n": True}, "int_type", ["body", "n"]),
        ({"n": 9}, "less_than_equal", ["body", "n"]),
        ({"safe_mode": True}, "extra_forbidden", ["body", "safe_mode"]),
        ({"max_completion_tokens": 5}, "extra_forbidden", ["body", "max_completion_tokens"]),
        ({"top_logprobs": 21}, "less_than_equal", ["body", "top_logprobs"]),
        ({"logprobs": 3}, "bool_type", ["body", "logprobs"]),
        ({"response_format": {"type": "json_schema"}}, "value_error", ["body", "response_format"]),
        ({"tools": [{"function": {"name": "f"}}]}, "missing", ["body", "tools", 0, "function", "parameters"]),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}, "x": 1}}]},
            "extra_forbidden",
            ["body", "tools", 0, "function", "x"],
        ),
        ({"tools": [{"function": {"name": "f", "parameters": {}}}] * 129}, "too_long", ["body", "tools"]),
        ({"random_seed": 10**30}, "less_than_equal", ["body", "random_seed"]),
        ({"model": ""}, "string_too_short", ["body", "model"]),
    ],
)
def test_a_wrong_field_is_named(fields, kind, loc):
    assert [(entry["type"], entry["loc"]) for entry in refused(chat_body(**fields))] == [(kind, loc)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"{}{}",
        b'{"model":"\xff"}',
        b'{"model":"\\ud800","messages":[]}',
        b"[" * 100_000,
        b'{"model":' * 100_000,
        b'{"model":"t","messages":[],"n":' + b"9" * 5_000 + b"}",
        b'{"model":"t","messages":[' + b"1," * 500_000 + b"1]}",
    ],
)
def test_junk_is_refused_with_entries(body):
    details = refused(body)
    assert details
    assert all(entry["loc"][0] == "body" and entry["msg"] for entry in details)


def test_a_flood_of_wrong_fields_is_one_entry():
    body = json.dumps({"model": "t", "messages": [USER], **{f"k{i}": 1 for i in range(1_000)}}).encode()
    assert [(entry["type"], entry["loc"]) for entry in refused(body)] == [("too_many_errors", ["body"])]


def test_what_the_caller_wrote_is_cut_and_not_repeated():
    [entry] = refused(chat_body(**{"k" * 10_000: "secret"}))
    assert len(entry["loc"][1]) == 100
    [entry] = refused(chat_body(messages=[{"role": "r" * 10_000, "content": "x"}]))
    assert len(entry["msg"]) == 500


def test_a_request_becomes_what_admission_takes():
    asked = parse(
        ChatCompletionRequest,
        chat_body(
            stop="a", random_seed=7, n=3, top_p=0.5, max_tokens=9, min_tokens=2, frequency_penalty=1, stream=True
        ),
    )
    wish = to_chat_request(asked, TIER).wish
    assert (wish.stop, wish.seed, wish.n, wish.top_p) == (("a",), 7, 3, 0.5)
    assert (wish.max_tokens, wish.min_tokens, wish.frequency_penalty, wish.stream) == (9, 2, 1.0, True)
    assert wish.temperature is None


@pytest.mark.parametrize(
    ("fields", "logprobs"),
    [
        ({}, None),
        ({"logprobs": False, "top_logprobs": 0}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
    ],
)
def test_log_probabilities_beside_each_token(fields, logprobs):
    assert to_chat_request(parse(ChatCompletionRequest, chat_body(**fields)), TIER).wish.logprobs == logprobs


def test_likeliest_tokens_without_log_probabilities_are_a_contradiction():
    with pytest.raises(PlatformError) as caught:
        to_chat_request(parse(ChatCompletionRequest, chat_body(top_logprobs=2)), TIER)
    assert (caught.value.kind, caught.value.details[0]["loc"]) == (VALIDATION, ("body", "top_logprobs"))


def test_top_k_and_repetition_penalty():
    for given, meant in ((None, 0), (-1, 0), (0, 0), (5, 5)):
        assert to_chat_request(parse(ChatCompletionRequest, chat_body(top_k=given)), TIER).wish.top_k == meant
    asked = parse(ChatCompletionRequest, chat_body(repetition_penalty=1.2))
    assert to_chat_request(asked, TIER).wish.repetition_penalty == 1.2


SKY = {"type": "function", "function": {"name": "sky", "description": "", "strict": False, "parameters": {"a": 1}}}


@pytest.mark.parametrize(
    ("fields", "use"),
    [
        ({}, ToolUse()),
        ({"tool_choice": "auto"}, ToolUse()),
        ({"tools": []}, ToolUse()),
        ({"tools": [SKY]}, ToolUse([SKY])),
        ({"tools": [SKY], "tool_choice": "none"}, ToolUse([SKY], Choice.NONE)),
        ({"tools": [SKY], "tool_choice": "any"}, ToolUse([SKY], Choice.ANY)),
        (
            {"tools": [SKY], "tool_choice": "required", "parallel_tool_calls": False},
            ToolUse([SKY], Choice.ANY, None, False),
        ),
        ({"tools": [SKY], "tool_choice": {"function": {"name": "sky"}}}, ToolUse([SKY], Choice.ANY, "sky")),
        ({"tool_choice": "any"}, ToolUse([], Choice.ANY)),
    ],
)
def test_tools_and_their_choice(fields, use):
    assert to_chat_request(parse(ChatCompletionRequest, chat_body(**fields)), TIER).tool_use == use


SCHEMA = {"name": "s", "schema": {"type": "object"}, "strict": True, "description": None}


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, JsonAnswer()),
        ({"type": "json_schema", "json_schema": SCHEMA}, JsonAnswer({"type": "object"}, strict=True)),
    ],
)
def test_the_form_of_the_answer(wanted, answer):
    asked = parse(ChatCompletionRequest, chat_body(response_format=wanted))
    assert to_chat_request(asked, TIER).json_answer == answer


def test_safe_prompt_is_handed_on():
    assert to_chat_request(parse(ChatCompletionRequest, chat_body(safe_prompt=True)), TIER).safe_prompt


def test_a_body_to_fill_in():
    body = {"model": "t", "prompt": "a", "suffix": None, "stop": ["x"], "min_tokens": 1, "random_seed": 3, "top_p": 1}
    request = to_fim_request(parse(FIMCompletionRequest, json.dumps(body).encode()), TIER)
    assert (request.prompt, request.suffix) == ("a", "")
    assert (request.wish.stop, request.wish.min_tokens, request.wish.seed) == (("x",), 1, 3)
    for wrong in ({"n": 1}, {"prompt": None}, {"temperature": 2}):
        with pytest.raises(PlatformError):
            parse(FIMCompletionRequest, json.dumps(body | wrong).encode())


def test_one_text_or_several():
    assert parse(EmbeddingRequest, b'{"model":"e","input":"a"}').texts == ("a",)
    assert parse(EmbeddingRequest, b'{"model":"e","input":["a","b"]}').texts == ("a", "b")


@pytest.mark.parametrize("body", [b'{"model":"e","input":[]}', b'{"model":"e","input":[1]}', b'{"model":"e"}'])
def test_inputs_that_are_no_texts(body):
    with pytest.raises(PlatformError) as caught:
        parse(EmbeddingRequest, body)
    assert caught.value.kind == VALIDATION


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"output_dimension": 4}, "output_dimension"), ({"output_dtype": "int8"}, "output_dtype")],
)
def test_vectors_that_the_tier_does_not_make(fields, param):
    asked = parse(EmbeddingRequest, json.dumps({"model": "e", "input": "a", **fields}).encode())
    with pytest.raises(PlatformError) as caught:
        embeddings.refuse_unserved(asked, EMBED)
    assert caught.value.param == param


def test_the_tiers_own_dimension_passes():
    embeddings.refuse_unserved(parse(EmbeddingRequest, b'{"model":"e","input":"a","output_dimension":8}'), EMBED)
