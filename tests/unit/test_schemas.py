import json

import pytest

from core.catalog import Tier
from core.errors import INVALID_ARGUMENTS, VALIDATION, PlatformError
from gateway.routes.chat import SAFE_PROMPT, to_chat_request
from gateway.schemas import chat, embeddings
from gateway.schemas.chat import NEUTRAL, ChatCompletionRequest
from gateway.schemas.embeddings import EmbeddingRequest
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
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    "tool_choice": "any",
    "response_format": {"type": "json_object"},
    "prediction": {"type": "content", "content": "x"},
    "prompt_mode": "reasoning",
    "reasoning_effort": "high",
    "guardrails": [{"block_on_error": True}],
    "repetition_penalty": 1.1,
    "top_k": 5,
    "logprobs": True,
    "top_logprobs": 3,
    "prompt_logprobs": 1,
    "top_prompt_logprobs": 1,
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_what_is_not_served_is_refused_by_name(name):
    asked = parse(ChatCompletionRequest, chat_body(**{name: ASKED_FOR[name]}))
    with pytest.raises(PlatformError) as caught:
        chat.refuse_unserved(asked)
    assert (caught.value.kind, caught.value.param) == (INVALID_ARGUMENTS, name)


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
    request = to_chat_request(asked, TIER)
    assert (request.stop, request.seed, request.n, request.top_p) == (("a",), 7, 3, 0.5)
    assert (request.max_tokens, request.min_tokens, request.frequency_penalty, request.stream) == (9, 2, 1.0, True)
    assert request.temperature is None


def test_safe_prompt_stands_in_front():
    request = to_chat_request(parse(ChatCompletionRequest, chat_body(safe_prompt=True)), TIER)
    assert [message["role"] for message in request.messages] == ["system", "user"]
    assert request.messages[0]["content"] == SAFE_PROMPT


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
