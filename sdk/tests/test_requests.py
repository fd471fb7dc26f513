import json
from datetime import datetime, timedelta, timezone

import pytest
from pydantic import BaseModel

from tramontane.errors import NotParsed
from tramontane.types import AssistantMessage, ChatCompletion
from tramontane.wire.account import limits_call, model_call, models_call, moment_text, records_call, usage_call
from tramontane.wire.admin import Desk, place
from tramontane.wire.chat import chat_call, fim_call, messages_of
from tramontane.wire.decode import decode
from tramontane.wire.parsing import format_of, parsed_of

TALK = [{"role": "user", "content": "Hello"}]

USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


class Book(BaseModel):
    title: str
    year: int = 1999


def completion(content, reason="stop"):
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": reason}
    return decode(ChatCompletion, {"id": "i", "model": "m", "choices": [choice], "usage": USAGE})


def test_a_chat_request():
    call = chat_call("m", TALK, {"temperature": 0, "stop": None, "extra_body": {"future": 1}, "idempotency_key": "k"})
    assert (call.method, call.path, call.accept) == ("POST", "/v1/chat/completions", "application/json")
    assert call.body == {"model": "m", "messages": TALK, "temperature": 0, "future": 1}
    assert (call.keyed, call.idempotency_key) == (True, "k")


def test_a_stream_carries_only_a_key_of_the_callers_own():
    call = chat_call("m", TALK, {}, stream=True)
    assert call.body["stream"] is True
    assert (call.accept, call.keyed, call.idempotency_key) == ("text/event-stream", False, None)
    assert chat_call("m", TALK, {"idempotency_key": "k"}, stream=True).idempotency_key == "k"


def test_messages_may_be_answers():
    answered = AssistantMessage(content="Hi")
    assert messages_of([*TALK, answered]) == [*TALK, {"role": "assistant", "content": "Hi"}]
    for wrong in ("Hello", b"Hello", TALK[0]):
        with pytest.raises(TypeError):
            messages_of(wrong)


def test_tools_may_be_functions_or_mappings():
    def sky(place: str) -> str:
        """Its colour."""
        return place

    plain = {"type": "function", "function": {"name": "sea", "parameters": {}}}
    call = chat_call("m", TALK, {"tools": [sky, plain], "tool_choice": "any"})
    assert [tool["function"]["name"] for tool in call.body["tools"]] == ["sky", "sea"]
    assert call.body["tools"][0]["function"]["description"] == "Its colour."


def test_an_option_that_does_not_exist():
    with pytest.raises(TypeError, match="'temprature'"):
        chat_call("m", TALK, {"temprature": 1})
    with pytest.raises(TypeError, match="'tools'"):
        fim_call("m", "def f():", {"tools": []})


def test_a_fim_request():
    call = fim_call("m", "def f():", {"suffix": "return x", "max_tokens": 4})
    assert call.path == "/v1/fim/completions"
    assert call.body == {"model": "m", "prompt": "def f():", "suffix": "return x", "max_tokens": 4}
    assert fim_call("m", "p", {}, stream=True).body["stream"] is True


def test_an_answer_of_a_form():
    asked = format_of(Book)
    assert asked["type"] == "json_schema"
    assert asked["json_schema"]["name"] == "Book"
    assert asked["json_schema"]["strict"] is True
    schema = asked["json_schema"]["schema"]
    assert schema["required"] == ["title", "year"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["title"] == {"type": "string"}
    found = parsed_of(Book, completion('{"title": "Persuasion", "year": 1817}'))
    assert found.parsed == Book(title="Persuasion", year=1817)
    assert found.completion.id == "i"


def test_an_answer_of_another_form():
    with pytest.raises(NotParsed, match="max_tokens") as caught:
        parsed_of(Book, completion('{"title": "Pers', "length"))
    assert caught.value.completion.choices[0].message.content == '{"title": "Pers'
    with pytest.raises(NotParsed, match="no Book: ValidationError"):
        parsed_of(Book, completion("{}"))
    with pytest.raises(TypeError):
        format_of(dict)


def test_account_requests():
    assert models_call().path == "/v1/models"
    assert model_call("a/b c").path == "/v1/models/a%2Fb%20c"
    assert limits_call().path == "/v1/limits"
    zone = timezone(timedelta(hours=2))
    call = usage_call(
        scope="workspace",
        start=datetime(2026, 11, 1, tzinfo=zone),
        end=1_800_000_000,
        time_zone="Europe/Rome",
        group_by=["day", "tier"],
        limit=5,
        cursor=None,
        latency=True,
    )
    assert dict(call.query) == {
        "scope": "workspace",
        "from": "2026-11-01T00:00:00+02:00",
        "to": "1800000000",
        "time_zone": "Europe/Rome",
        "group_by": "day,tier",
        "limit": "5",
        "latency": "true",
    }
    records = records_call(scope=None, start="2026-11-01", end=None, time_zone=None)
    assert records.query == (("format", "jsonl"), ("from", "2026-11-01"))
    assert records.accept == "application/jsonl"


def test_a_moment_has_a_zone():
    with pytest.raises(ValueError, match="time zone"):
        moment_text(datetime(2026, 11, 1))  # noqa: DTZ001
    assert moment_text(None) is None


def test_administrative_requests_say_what_may_be_repeated():
    desk = Desk("acme")
    assert desk.get("/x", ChatCompletion, a=1).query == (("organisation", "acme"), ("a", "1"))
    assert Desk().get("/x", ChatCompletion).query == ()
    assert not desk.get("/x", ChatCompletion).keyed
    calls = {
        "create": desk.create("/x", ChatCompletion, {}),
        "create_once": desk.create_once("/x", ChatCompletion, {}, "k"),
        "post": desk.post("/x", ChatCompletion),
        "put": desk.put("/x", ChatCompletion, {}),
        "patch": desk.patch("/x", ChatCompletion, {}),
        "delete": desk.delete("/x"),
        "revoke": desk.delete("/x", repeatable=True),
        "remove": desk.remove("/x", ChatCompletion),
    }
    assert all(call.keyed and call.path == "/v1/admin/x" for call in calls.values())
    repeatable = {name for name, call in calls.items() if call.repeatable}
    assert repeatable == {"create_once", "post", "put", "patch", "revoke"}
    assert calls["create_once"].idempotency_key == "k"
    assert place("/a/*/b/*", "x/y", "*") == "/a/x%2Fy/b/%2A"
    for empty in ("", ".", ".."):
        with pytest.raises(ValueError, match="no id"):
            place("/a/*", empty)
    with pytest.raises(Exception, match=r"str at data\[0\]\.id"):
        desk.listed("/x", ChatCompletion).read({"data": [json.loads("{}")]})
