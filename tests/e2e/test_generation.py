"""What is promised of generated text, over the wire and with the real engine."""

import asyncio
import json

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.conformance.document import chunks_of
from tests.conformance.world import metered
from tests.e2e.installation import BOUND_S

TALK = [{"role": "user", "content": "Tell me about the wind."}]
MODELS = ("mistral-tiny", "mistral-small", "codestral")
CHAT = "/v1/chat/completions"
SCHEMAS = [
    {"enum": ["très", 7, None, "a\nb"]},
    {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 2, "maxItems": 4},
    {
        "type": "object",
        "properties": {"état": {"type": "string", "maxLength": 6}, "ok": {"type": "boolean"}},
        "required": ["état"],
        "additionalProperties": False,
    },
]


@pytest.fixture(scope="module")
def calling(platform):
    made = platform.quick("keys", "create", "--workspace", "default", "--org", "default", "--name", "generation")
    base_url = platform.quick("status")["base_url"]
    with httpx.Client(base_url=base_url, headers={"authorization": f"Bearer {made['key']}"}, timeout=BOUND_S) as client:
        client.headers["x-key-id"] = made["id"]  # nobody reads it but the tests
        yield client


def ask(client, model="mistral-tiny", *, stream=False, messages=TALK, **fields):
    """The first choice's text, its reason, and usage; streamed or not."""
    answer = client.post(CHAT, json={"model": model, "messages": messages, "stream": stream, **fields})
    assert answer.status_code == 200, answer.text
    if not stream:
        body = answer.json()
        return body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"], body["usage"]
    chunks = chunks_of(answer.content.decode())  # strictly: a character that was cut would raise
    assert [chunk.get("usage") is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    texts = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    for text in texts:
        text.encode()
    return "".join(texts), chunks[-1]["choices"][0]["finish_reason"], chunks[-1]["usage"]


@pytest.mark.parametrize("model", MODELS)
def test_a_stop_string_is_never_shown_wherever_it_begins(calling, model):
    asked = {"random_seed": 5, "max_tokens": 24}
    whole, _, _ = ask(calling, model, **asked)
    for start in range(3, min(len(whole), 40) - 4, 7):
        stop = whole[start : start + 4]
        for stream in (False, True):
            text, reason, usage = ask(calling, model, stream=stream, stop=["never said", stop], **asked)
            assert (text, reason) == (whole[: whole.index(stop)], "stop")
            assert usage["completion_tokens"] <= 24


@pytest.mark.parametrize("model", MODELS)
def test_streamed_text_is_the_same_text_and_no_character_is_cut(calling, model):
    for seed in (1, 2):
        asked = {"random_seed": seed, "max_tokens": 60, "temperature": 1.5}
        assert ask(calling, model, stream=True, **asked) == ask(calling, model, **asked)


async def test_a_seed_gives_the_same_text_in_any_batch(calling):
    asked = {"random_seed": 77, "max_tokens": 20, "temperature": 1.2}
    alone = ask(calling, **asked)
    body = {"model": "mistral-tiny", "messages": TALK, **asked}
    crowd = [
        {**body, "random_seed": seed, "messages": [*TALK[:0], {"role": "user", "content": "x " * seed}]}
        for seed in range(1, 12)
    ]
    async with httpx.AsyncClient(base_url=calling.base_url, headers=calling.headers, timeout=BOUND_S) as client:
        answers = await asyncio.gather(*(client.post(CHAT, json=one) for one in (body, *crowd, body)))
    texts = [answer.json()["choices"][0]["message"]["content"] for answer in (answers[0], answers[-1])]
    assert texts == [alone[0]] * 2


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("stream", [False, True])
def test_json_follows_its_schema(calling, schema, stream):
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}}
    for model in MODELS:
        text, reason, _ = ask(calling, model, stream=stream, response_format=form)
        assert reason == "stop"
        Draft202012Validator(schema).validate(json.loads(text))


def test_penalties_are_felt(calling):
    asked = {"temperature": 0, "max_tokens": 40}
    plain = ask(calling, **asked)
    assert ask(calling, **asked) == plain
    assert ask(calling, **asked, frequency_penalty=2.0, presence_penalty=2.0)[0] != plain[0]


def test_a_prefix_is_continued_with_its_space(calling):
    messages = [*TALK, {"role": "assistant", "content": "The wind", "prefix": True}]
    for stream in (False, True):
        text, _, usage = ask(calling, messages=messages, max_tokens=6, random_seed=3, stream=stream)
        assert text.startswith("The wind")
        assert usage["completion_tokens"] <= 6


def test_a_hundred_with_one_idempotency_key_run_once_and_are_charged_once(platform, calling):
    key_id = calling.headers["x-key-id"]
    before = metered(platform, key_id)

    async def run():
        limits = httpx.Limits(max_connections=100)
        headers = {**calling.headers, "idempotency-key": "a hundred"}
        body = {"model": "mistral-tiny", "messages": TALK, "max_tokens": 12}
        url = str(calling.base_url)
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=BOUND_S, limits=limits) as client:
            return await asyncio.gather(*(client.post(CHAT, json=body) for _ in range(100)))

    answers = asyncio.run(run())
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert sum(answer.headers.get("idempotent-replayed") == "true" for answer in answers) == 99
    usage = answers[0].json()["usage"]
    after = metered(platform, key_id)
    assert {name: after[name] - before[name] for name in before} == {name: usage[name] for name in before}
