import dataclasses

import pytest

from tramontane.admin_types import NewInvite, NewKey
from tramontane.errors import UnexpectedAnswer
from tramontane.secret import Secret
from tramontane.types import ChatCompletion, Model, TokenLogprob, UsageReport
from tramontane.wire.calls import UNSET, Call, nothing, prepare, query, read_answer, read_line, reader, with_key
from tramontane.wire.config import Config, Retries, Timeouts
from tramontane.wire.decode import Meta, decode

CHAT = {
    "id": "r1",
    "object": "chat.completion",
    "created": 7,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi", "tool_calls": None, "prefix": False, "mood": "kind"},
            "finish_reason": "stop",
            "logprobs": {"content": [{"token": "Hi", "logprob": 0, "bytes": [72, 105], "token_id": 1}]},
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    "weather": {"wind": "north"},
}
BARE = b'{"id": "i", "model": "m", "choices": [], "usage": {"prompt_tokens": 1, "total_tokens": 2}}'
CONFIG = Config(Secret("k"), "http://h", Timeouts(), Retries())


def test_known_fields_are_typed_and_unknown_ones_kept():
    answer = decode(ChatCompletion, CHAT)
    assert answer.choices[0].message.content == "Hi"
    assert answer.usage.total_tokens == 2
    assert answer.extra == {"weather": {"wind": "north"}}
    assert answer.choices[0].message.extra == {"mood": "kind"}
    assert answer.usage.extra == {}
    assert (answer.meta.status, answer.meta.request_id, answer.meta.cost_nano) == (0, None, None)
    logprob = answer.choices[0].logprobs.content[0]
    assert logprob == TokenLogprob("Hi", 0.0, [72, 105], 1)
    assert type(logprob.logprob) is float
    with pytest.raises(dataclasses.FrozenInstanceError):
        answer.id = "other"


def test_a_message_goes_back_as_it_came():
    calls = [{"id": "Xa9fK2m0Q", "type": "function", "function": {"name": "sky", "arguments": "{}"}, "index": 0}]
    message = {**CHAT["choices"][0]["message"], "content": "", "tool_calls": calls}
    answer = decode(ChatCompletion, {**CHAT, "choices": [{"index": 0, "message": message}]})
    assert answer.choices[0].message.to_message() == {"role": "assistant", "content": "", "tool_calls": calls}
    assert answer.choices[0].finish_reason is None


def test_names_that_python_keeps_for_itself():
    report = decode(UsageReport, {"from": "a", "to": "b", "time_zone": "UTC", "data": []})
    assert (report.start, report.end, report.next) == ("a", "b", None)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"id": 7}, "str at id"),
        ({"id": None}, "str at id"),
        ({"choices": {}}, "list at choices"),
        ({"choices": [7]}, "Choice at choices[0]"),
        ({"choices": [{"index": True, "message": {}}]}, "int at choices[0].index"),
        ({"choices": [{"index": 0}]}, "AssistantMessage at choices[0].message"),
        ({"created": 1.5}, "int at created"),
        ({"usage": []}, "Usage at usage"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(change, where):
    with pytest.raises(UnexpectedAnswer) as caught:
        decode(ChatCompletion, {**CHAT, **change})
    assert str(caught.value) == f"the answer has no {where}"


def test_an_answer_of_another_kind():
    with pytest.raises(UnexpectedAnswer, match="ChatCompletion at its top"):
        decode(ChatCompletion, ["no", "object"])
    with pytest.raises(UnexpectedAnswer, match="str at id"):
        decode(Model, {})
    with pytest.raises(UnexpectedAnswer, match="dict at capabilities"):
        decode(Model, {"id": "m", "capabilities": []})
    with pytest.raises(UnexpectedAnswer, match=r"bool at capabilities\.vision"):
        decode(Model, {"id": "m", "capabilities": {"vision": 1}})


def test_what_is_shown_once_is_in_no_repr():
    key = NewKey("i", "n", "h", "c", "w", "wn", "o", "cb", [], can_delete=True, networks=[], key="tmt_secret")
    invite = NewInvite("i", "e", "r", "x", mailed=False, url="https://secret")
    assert "secret" not in f"{key!r} {invite!r}"


def test_what_the_headers_say():
    headers = {
        "x-tramontane-cost-nano": "1400",
        "x-tramontane-queue-ms": "3",
        "x-tramontane-price-version": "2026-11",
        "x-tramontane-ignored": "metadata,prediction",
        "x-ratelimit-remaining-req-minute": "59",
        "x-ratelimit-remaining-tokens-minute": "odd",
        "idempotent-replayed": "true",
    }
    meta = Meta(200, headers, "r1")
    assert (meta.cost_nano, meta.queue_ms, meta.price_version) == (1400, 3, "2026-11")
    assert (meta.remaining_requests, meta.remaining_tokens) == (59, None)
    assert meta.ignored == ("metadata", "prediction")
    assert meta.replayed
    assert Meta(200, {}).ignored == ()
    assert not Meta(200, {}).replayed


def test_a_call_on_the_wire():
    call = Call("POST", "/v1/x", nothing, body={"é": [1, None]}, keyed=True)
    assert prepare(call, CONFIG).headers == {
        "accept": "application/json",
        "user-agent": "tramontane-python/0.1.0",
        "content-type": "application/json",
    }
    keyed = prepare(with_key(call, "k1"), CONFIG)
    assert keyed.url == "http://h/v1/x"
    assert keyed.content == '{"é":[1,null]}'.encode()
    assert keyed.headers["idempotency-key"] == "k1"
    assert with_key(with_key(call, "k1"), "k2").idempotency_key == "k1"
    assert with_key(Call("GET", "/v1/x", nothing), "k1").idempotency_key is None
    assert "é" not in repr(call)
    with pytest.raises(ValueError, match="JSON"):
        prepare(Call("POST", "/v1/x", nothing, body={"x": float("nan")}), CONFIG)


def test_query_values():
    assert query(a=1, b=None, c=True, d=False, e="x") == (("a", "1"), ("c", "true"), ("d", "false"), ("e", "x"))
    assert repr(UNSET) == "UNSET"


def test_reading_answers():
    call = Call("GET", "/v1/x", reader(ChatCompletion))
    answer = read_answer(call, 200, {"mistral-correlation-id": "r9"}, BARE)
    assert answer.meta.request_id == "r9"
    with pytest.raises(UnexpectedAnswer, match="GET /v1/x answered 200 with text/html instead of JSON"):
        read_answer(call, 200, {"content-type": "text/html"}, b"<html>")
    assert read_answer(Call("DELETE", "/v1/x", nothing), 204, {}, b"") is None
    assert read_line(call, BARE).id == "i"
    with pytest.raises(UnexpectedAnswer, match="no JSON"):
        read_line(call, b"{")
