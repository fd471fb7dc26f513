"""Both clients over a platform that answers as scripted; what holds for one holds for the other."""

import gc
import inspect
import logging
import traceback

import httpx
import pytest
from pydantic import BaseModel

from tramontane import (
    AsyncTramontane,
    AuthenticationError,
    ConnectFailed,
    ConnectionLost,
    CreditExhausted,
    EngineFailed,
    RateLimited,
    Retries,
    StreamInterrupted,
    TimedOut,
    Timeouts,
    TooManyTokens,
    Tramontane,
    Unavailable,
    UnexpectedAnswer,
)
from tramontane.testing import AsyncInstantTiming, InstantTiming, MockTransport

SECRET = "tmt_very_secret"
TALK = [{"role": "user", "content": "Hello"}]
ASK = {"model": "m", "messages": TALK}


class Both:
    """Runs the same steps with either client."""

    def __init__(self, kind):
        self.mock = MockTransport()
        timing = InstantTiming() if kind is Tramontane else AsyncInstantTiming()
        self.slept = timing.slept
        self.client = kind(api_key=SECRET, base_url="http://test", transport=self.mock, timing=timing)

    async def do(self, found):
        return await found if inspect.isawaitable(found) else found

    async def all(self, found):
        return [item async for item in found] if hasattr(found, "__aiter__") else list(found)

    async def close(self, what):
        await self.do(what.aclose() if hasattr(what, "aclose") else what.close())


@pytest.fixture(params=[Tramontane, AsyncTramontane])
def both(request):
    return Both(request.param)


@pytest.fixture
def chat(both):
    return both.client.chat


async def test_a_whole_answer(both, chat):
    both.mock.chat("Hi", headers={"x-tramontane-cost-nano": "7"})
    answer = await both.do(chat.complete(**ASK, max_tokens=5))
    assert answer.choices[0].message.content == "Hi"
    assert (answer.meta.cost_nano, answer.meta.request_id) == (7, "mock-request")
    (asked,) = both.mock.requests
    assert (asked.method, asked.path) == ("POST", "/v1/chat/completions")
    assert asked.body == {**ASK, "max_tokens": 5}
    assert len(asked.headers["idempotency-key"]) == 32
    assert both.mock.bodies[0].closed


async def test_one_key_over_all_tries(both, chat):
    both.mock.refuse(503, retry_after_s=2).fail(httpx.ReadError("gone")).refuse(500, code="3600").chat("Hi")
    answer = await both.do(chat.complete(**ASK))
    assert answer.choices[0].message.content == "Hi"
    assert len({asked.headers["idempotency-key"] for asked in both.mock.requests}) == 1
    assert both.slept == [2.5, 1.0, 2.0]
    both.mock.chat("Ho")
    await both.do(chat.complete(**ASK, idempotency_key="mine"))
    assert both.mock.requests[-1].headers["idempotency-key"] == "mine"


async def test_money_is_never_retried(both, chat):
    refused_by = {"rule": "credit", "scope": "organisation", "limit": 9, "remaining": 1, "retry_after_ms": None}
    both.mock.refuse(402, code="1310", message="Credit used up.", refused_by=refused_by)
    with pytest.raises(CreditExhausted) as caught:
        await both.do(chat.complete(**ASK))
    assert caught.value.refusal.rule == "credit"
    assert both.slept == []


async def test_a_rate_limit_is_waited_for(both, chat):
    both.mock.refuse(429, code="1300", retry_after_s=3).chat("Hi")
    await both.do(chat.complete(**ASK))
    assert both.slept == [3.5]
    both.mock.refuse(429, code="1300", retry_after_s=3_600)
    with pytest.raises(RateLimited) as caught:
        await both.do(chat.complete(**ASK))
    assert caught.value.retry_after_s == 3_600


async def test_tries_are_bounded(both, chat):
    for _ in range(4):
        both.mock.fail(httpx.ConnectError("refused"))
    with pytest.raises(ConnectFailed, match="ConnectError: refused"):
        await both.do(chat.complete(**ASK))
    assert len(both.slept) == 3
    both.mock.refuse(503).refuse(503)
    patient = both.client.with_options(retries=Retries(tries_max=2, backoff_s=0))
    with pytest.raises(Unavailable):
        await both.do(patient.chat.complete(**ASK))
    await both.close(patient)  # the connections are not its own


async def test_no_more_tries_when_the_time_is_up(both, chat):
    both.mock.refuse(503, retry_after_s=8).refuse(503, retry_after_s=8)
    hasty = both.client.with_options(timeouts=Timeouts(total_s=10), retries=Retries(backoff_s=0))
    with pytest.raises(Unavailable):
        await both.do(hasty.chat.complete(**ASK))
    assert both.slept == [8.0]


async def test_answers_that_are_none(both, chat):
    both.mock.raw([b"<html>"], headers={"content-type": "text/html"})
    with pytest.raises(UnexpectedAnswer, match="text/html"):
        await both.do(chat.complete(**ASK))
    both.mock.json({"id": 7})
    with pytest.raises(UnexpectedAnswer):
        await both.do(chat.complete(**ASK))
    for _ in range(4):
        both.mock.raw([b"{", httpx.ReadError("")])
    with pytest.raises(ConnectionLost, match="ReadError"):
        await both.do(chat.complete(**ASK))
    assert all(body.closed for body in both.mock.bodies)
    with pytest.raises(AssertionError, match="POST /v1/chat/completions"):
        await both.do(chat.complete(**ASK))


async def test_redirects_are_not_followed_with_the_key(both, chat):
    both.mock.json({"message": "elsewhere"}, status=307, headers={"location": "http://evil.example/"})
    with pytest.raises(Exception, match="307"):
        await both.do(chat.complete(**ASK))
    assert len(both.mock.requests) == 1


async def test_a_stream(both, chat):
    both.mock.stream("Hel", "lo")
    stream = chat.stream(**ASK)
    assert both.mock.requests == []
    with pytest.raises(RuntimeError, match="not begun"):
        _ = stream.meta
    chunks = await both.all(stream)
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "Hel", "lo", ""]
    assert stream.completion.choices[0].message.content == "Hello"
    assert stream.completion.usage.total_tokens == 2
    assert stream.meta.request_id == "mock-request"
    assert await both.all(stream) == []
    assert both.mock.bodies[0].closed
    assert both.mock.requests[0].body["stream"] is True
    assert both.mock.requests[0].headers["accept"] == "text/event-stream"
    assert "idempotency-key" not in both.mock.requests[0].headers


async def test_only_the_text_and_the_rest_at_once(both, chat):
    both.mock.stream("Hel", "lo").stream("Hel", "lo")
    assert await both.all(chat.stream(**ASK).texts()) == ["Hel", "lo"]
    answer = await both.do(chat.stream(**ASK).until_done())
    assert answer.choices[0].message.content == "Hello"


async def test_a_stream_is_retried_before_it_begins(both, chat):
    both.mock.refuse(503, retry_after_s=1).fail(httpx.ConnectError("refused")).stream("Hi")
    assert await both.all(chat.stream(**ASK).texts()) == ["Hi"]
    assert both.slept == [1.5, 1.0]
    both.mock.refuse(401)
    with pytest.raises(AuthenticationError):
        await both.all(chat.stream(**ASK))


async def test_a_stream_that_fails_in_its_middle(both, chat):
    both.mock.stream("Hel", error="The engine failed.")
    stream = chat.stream(**ASK)
    with pytest.raises(StreamInterrupted, match=r"The engine failed\. \(request mock-request\)") as caught:
        await both.all(stream)
    assert caught.value.text == "Hel"
    both.mock.stream("Hel", failure=httpx.ReadError("reset"))
    with pytest.raises(StreamInterrupted, match="reset") as caught:
        await both.all(chat.stream(**ASK))
    assert caught.value.text == "Hel"
    both.mock.stream("Hel", failure=httpx.ReadTimeout(""))
    with pytest.raises(TimedOut) as caught:
        await both.all(chat.stream(**ASK))
    assert caught.value.phase == "idle"
    both.mock.stream("Hel", complete=False)
    with pytest.raises(StreamInterrupted, match="before its end"):
        await both.all(chat.stream(**ASK).texts())
    both.mock.stream("Hel", complete=False)
    with pytest.raises(StreamInterrupted):
        await both.do(chat.stream(**ASK).until_done())
    assert all(body.closed for body in both.mock.bodies)
    assert both.slept == []


async def test_time_limits_of_answers(both, chat):
    for phase, found in (("total", chat.complete), ("first_token", lambda **ask: both.all(chat.stream(**ask)))):
        both.mock.fail(httpx.ReadTimeout(""))
        with pytest.raises(TimedOut) as caught:
            await both.do(found(**ASK))
        assert caught.value.phase == phase
    both.mock.raw([b"{", httpx.ReadTimeout("")])
    with pytest.raises(TimedOut) as caught:
        await both.do(chat.complete(**ASK))
    assert caught.value.phase == "total"


async def test_fill_in_the_middle(both):
    both.mock.chat("return 1").stream("return", " 1")
    fim = both.client.fim
    answer = await both.do(fim.complete(model="c", prompt="def f():", suffix="x"))
    assert answer.choices[0].message.content == "return 1"
    assert "".join(await both.all(fim.stream(model="c", prompt="def f():").texts())) == "return 1"
    assert [asked.path for asked in both.mock.requests] == ["/v1/fim/completions"] * 2


class Book(BaseModel):
    title: str


async def test_parse(both, chat):
    both.mock.chat('{"title": "Persuasion"}')
    found = await both.do(chat.parse(**ASK, response_format=Book, temperature=0))
    assert found.parsed == Book(title="Persuasion")
    assert both.mock.requests[0].body["response_format"]["json_schema"]["name"] == "Book"


async def test_a_tool_loop(both, chat):
    def sky(place: str) -> str:
        """Its colour."""
        return f"blue in {place}"

    both.mock.chat(tool_calls=[("sky", {"place": "Rome"})]).chat("Blue.")
    run = await both.do(chat.run(**ASK, tools=[sky], tool_choice="any", max_tokens=9))
    assert (run.content, run.rounds) == ("Blue.", 2)
    first, second = both.mock.requests
    assert (first.body["tool_choice"], second.body["tool_choice"]) == ("any", "auto")
    assert second.body["messages"][-1]["content"] == "blue in Rome"
    assert second.body["max_tokens"] == 9
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]


async def test_many_texts(both):
    for _ in range(4):
        both.mock.embeddings(lambda text: [float(text)])
    told = []
    numbers = [str(number) for number in range(1_000)]
    found = await both.do(
        both.client.embeddings.create(model="e", input=numbers, on_progress=lambda *done: told.append(done))
    )
    assert [item.embedding[0] for item in found.data] == list(range(1_000))
    assert told == [(256, 1_000), (512, 1_000), (768, 1_000), (1_000, 1_000)]
    both.mock.refuse(400, code="3210").embeddings(lambda _: [1.0]).embeddings(lambda _: [2.0])
    found = await both.do(both.client.embeddings.create(model="e", input=["a", "b"]))
    assert [item.embedding for item in found.data] == [[1.0], [2.0]]
    both.mock.refuse(400, code="3210")
    with pytest.raises(TooManyTokens):
        await both.do(both.client.embeddings.create(model="e", input="a"))


async def test_account(both):
    client, mock = both.client, both.mock
    card = {"id": "m", "capabilities": {"completion_chat": True}, "max_context_length": 9}
    mock.json({"object": "list", "data": [card]}).json(card)
    assert (await both.do(client.models.list()))[0].capabilities["completion_chat"]
    assert (await both.do(client.models.retrieve("m"))).max_context_length == 9
    named = {"id": "i", "name": "n"}
    mock.json({"id": "k", "workspace": named, "organization": named, "api_key": named, "email": None})
    assert (await both.do(client.users.me())).organization.name == "n"
    state = {"rule": "concurrency", "scope": "key", "scope_id": "k", "tier": None, "value": 1, "hard": True}
    mock.json({"data": [{**state, "used": 0, "remaining": 1, "reset_s": 0, "reset_at": 0, "window": None}]})
    assert (await both.do(client.limits.list()))[0].rule == "concurrency"


async def test_usage(both):
    numbers = ("requests", "failed_requests", "prompt_tokens", "completion_tokens", "cached_tokens", "total_tokens")
    line = {"start": "a", "end": "b", **dict.fromkeys(numbers, 1), "cost_nano": 5, "cost": "0.000000005"}
    page = {"object": "list", "from": "a", "to": "b", "time_zone": "UTC", "data": [line]}
    both.mock.json({**page, "next": "c1"}).json(page)
    lines = await both.all(both.client.usage.lines(group_by="tier"))
    assert [found.cost_nano for found in lines] == [5, 5]
    assert both.mock.requests[1].query == {"group_by": "tier", "cursor": "c1"}
    assert "idempotency-key" not in both.mock.requests[1].headers
    both.mock.json(page)
    assert (await both.do(both.client.usage.report(limit=1))).start == "a"
    record = (
        b'{"request_id":"r%d","admitted":"t","workspace":"w","key":"k","tier":"m","kind":"chat","outcome":"ok",'
        b'"streamed":false,"prompt_tokens":1,"completion_tokens":1,"cached_tokens":0,"cost_nano":1,"cost":"0",'
        b'"price_version":"v"}\n'
    )
    raw = record % 1 + b"\n" + (record % 2).rstrip()  # an empty line, and a last one without its end
    both.mock.raw([raw[:70], raw[70:]])
    assert [found.request_id for found in await both.all(both.client.usage.records())] == ["r1", "r2"]
    assert both.mock.bodies[-1].closed
    both.mock.raw([record % 3])
    assert [found.request_id for found in await both.all(both.client.usage.records())] == ["r3"]


async def test_the_key_is_in_no_repr_no_log_and_no_failure(both, chat, caplog):
    caplog.set_level(logging.DEBUG)
    seen = []

    def look(request):
        seen.append(request.headers["authorization"])
        raise httpx.ReadTimeout("late", request=request)

    both.mock.then(look)
    with pytest.raises(TimedOut) as caught:
        await both.do(chat.complete(**ASK))
    error = caught.value
    assert error.__cause__ is None
    assert not hasattr(error.__context__, "request")  # httpx's own exception would hold the request, and so the key
    told = [repr(error), *traceback.format_exception(type(error), error, error.__traceback__)]
    assert seen == [f"Bearer {SECRET}"]
    assert "authorization" not in both.mock.requests[0].headers
    everything = [*told, caplog.text, repr(both.client), repr(both.client._transport.config), repr(both.mock.requests)]
    assert not any(SECRET in text for text in everything)


async def test_an_http_client_of_the_callers_own():
    mock = MockTransport().chat("Hi").chat("Hi")
    with httpx.Client(transport=mock) as http:
        with Tramontane(api_key="k", http_client=http) as client:
            client.chat.complete(**ASK)
        assert not http.is_closed
    async with httpx.AsyncClient(transport=mock) as http:
        async with AsyncTramontane(api_key="k", http_client=http) as client:
            await client.chat.complete(**ASK)
        assert not http.is_closed


def test_leaving_a_stream_closes_it():
    mock = MockTransport().stream("a", "b", "c").stream("a", "b", "c").stream("a", "b", "c")
    client = Tramontane(api_key="k", transport=mock)
    with client.chat.stream(**ASK) as stream:
        for text in stream.texts():
            assert text == "a"
            break
        assert stream.completion.choices[0].message.content == "a"
    for chunk in client.chat.stream(**ASK):
        assert chunk.id
        break
    stream = client.chat.stream(**ASK)
    assert next(iter(stream.texts())) == "a"
    stream.close()
    gc.collect()
    assert [body.closed for body in mock.bodies] == [True, True, True]
    assert all(body.sent < 5 for body in mock.bodies)
    with client.chat.stream(**ASK) if mock.unused else stream as entered:
        assert list(entered) == []


async def test_leaving_a_stream_closes_it_async():
    mock = MockTransport().stream("a", "b", "c").stream("a", "b", "c")
    client = AsyncTramontane(api_key="k", transport=mock)
    async with client.chat.stream(**ASK) as stream:
        async for text in stream.texts():
            assert text == "a"
            break
    stream = client.chat.stream(**ASK)
    async with stream:
        pass
    assert [body.closed for body in mock.bodies] == [True, True]
    assert all(body.sent < 5 for body in mock.bodies)
    assert [chunk async for chunk in stream] == []


async def test_streamed_calls(both, chat):
    both.mock.stream(tool_calls=[("sky", {"place": "Rome"})])
    answer = await both.do(chat.stream(**ASK).until_done())
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"place": "Rome"}'
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_real_clocks_wait_between_tries():
    quick = {"api_key": "k", "retries": Retries(backoff_s=0.001)}
    mock = MockTransport().refuse(503).chat("Hi").refuse(503).chat("Hi")
    with Tramontane(transport=mock, **quick) as client:
        client.chat.complete(**ASK)
    async with AsyncTramontane(transport=mock, **quick) as client:
        await client.chat.complete(**ASK)


async def test_an_engine_that_fails_for_good(both, chat):
    for _ in range(4):
        both.mock.refuse(500, code="3600")
    with pytest.raises(EngineFailed):
        await both.do(chat.complete(**ASK))
