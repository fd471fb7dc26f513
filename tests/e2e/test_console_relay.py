"""Pages that a process of its own answers: what passes the gateway either way, and what happens when it dies."""

import asyncio
import contextlib
import os
import signal
import socket
import time

import httpx
import pytest
import structlog
import uvicorn
from sqlalchemy import select
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from cli.state import read_state
from core.db import connect_database
from gateway.accounts.people import ConsoleSession
from gateway.console_relay import ConsoleRelay, is_for_console
from gateway.services import Lifecycle
from tests.e2e.installation import UP, Installation, key_in

WAIT_S = 20.0


class Upstream:
    """What a console does, as far as a relay can see it."""

    def __init__(self):
        self.asked = []
        self.left = asyncio.Event()
        self.broken = asyncio.Event()

    async def note(self, request):
        target = request.scope["raw_path"] + b"?" + request.scope["query_string"]
        self.asked.append((request.method, target, list(request.headers.items()), await request.body()))
        response = PlainTextResponse("noted", status_code=201)
        response.set_cookie("one", "1")
        response.set_cookie("two", "2")
        return response

    async def endless(self, _request):
        async def events():
            try:
                while True:
                    yield b": still here\n\n"
                    if self.broken.is_set():
                        raise RuntimeError
                    await asyncio.sleep(0.05)
            finally:
                self.left.set()

        return StreamingResponse(events(), media_type="text/event-stream")

    async def moved(self, _request):
        return Response(status_code=303, headers={"location": "/console/login"})

    def app(self):
        every = ["GET", "POST", "HEAD"]
        return Starlette(
            routes=[
                Route("/console/endless", self.endless),
                Route("/console/moved", self.moved),
                Route("/{rest:path}", self.note, methods=every),
            ]
        )


@contextlib.asynccontextmanager
async def serving(app, listening):
    """A real server: one inside this process could not show a stream, or that its reader left."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", proxy_headers=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await running


@contextlib.asynccontextmanager
async def relayed(tmp_path):
    """The upstream, the life of the gateway before it, and a client of that gateway."""
    upstream, lifecycle = Upstream(), Lifecycle()
    path = tmp_path / "console.sock"
    behind, before = socket.socket(socket.AF_UNIX), socket.create_server(("127.0.0.1", 0))
    behind.bind(str(path))
    relay = ConsoleRelay(path, lifecycle, structlog.stdlib.get_logger())
    url = f"http://127.0.0.1:{before.getsockname()[1]}"
    async with (
        serving(upstream.app(), behind),
        serving(relay, before),
        httpx.AsyncClient(base_url=url, timeout=WAIT_S) as client,
    ):
        yield upstream, lifecycle, client
    await relay.close()


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/console", True),
        ("/console/", True),
        ("/console/o/x", True),
        ("/consoles", False),
        ("/", False),
        ("/v1/console", False),
    ],
)
def test_only_the_consoles_paths_are_relayed(path, wanted):
    assert is_for_console(path) is wanted


async def test_a_request_arrives_as_it_was_sent_but_for_who_says_whose_it_is(tmp_path):
    async with relayed(tmp_path) as (upstream, _, client):
        answer = await client.post(
            "/console/a%2Fb%20c?x=1&x=%C3%A9",
            content=b"\x00body",
            headers={
                "x-forwarded-for": "6.6.6.6",
                "x-forwarded-proto": "https",
                "forwarded": "for=6.6.6.6",
                "x-own": "1",
            },
        )
    assert (answer.status_code, answer.text) == (201, "noted")
    assert answer.headers.get_list("set-cookie") == ["one=1; Path=/; SameSite=lax", "two=2; Path=/; SameSite=lax"]
    assert len(answer.headers.get_list("date")) == 1
    method, target, headers, body = upstream.asked[0]
    assert (method, body) == ("POST", b"\x00body")
    assert target == b"/console/a%2Fb%20c?x=1&x=%C3%A9"
    told = dict(headers)
    assert (told["x-forwarded-for"], told["x-forwarded-proto"], told["x-own"]) == ("127.0.0.1", "http", "1")
    assert "forwarded" not in told
    assert [name for name, _ in headers].count("x-forwarded-for") == 1
    assert (told["content-length"], told["host"]) == ("5", client.base_url.netloc.decode())


async def test_heads_redirections_and_bodies_of_unknown_length(tmp_path):
    async def pieces():
        yield b"one"
        yield b"two"

    async with relayed(tmp_path) as (upstream, _, client):
        assert (await client.head("/console/x")).status_code == 201
        moved = await client.get("/console/moved")
        await client.post("/console/x", content=pieces())
    assert (moved.status_code, moved.headers["location"]) == (303, "/console/login")
    assert [(method, body) for method, _, _, body in upstream.asked] == [("HEAD", b""), ("POST", b"onetwo")]


async def test_a_stream_comes_piece_by_piece_and_ends_where_its_reader_leaves(tmp_path):
    async with relayed(tmp_path) as (upstream, _, client):
        async with client.stream("GET", "/console/endless") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            pieces = answer.aiter_raw()
            assert b"still here" in await anext(pieces)
            assert not upstream.left.is_set()
        await asyncio.wait_for(upstream.left.wait(), WAIT_S)


async def test_a_live_page_ends_with_the_gateway_that_drains(tmp_path):
    async with relayed(tmp_path) as (_, lifecycle, client), client.stream("GET", "/console/endless") as answer:
        lifecycle.draining = True
        async with asyncio.timeout(WAIT_S):
            assert [piece async for piece in answer.aiter_raw()]


async def test_a_console_that_breaks_off_is_not_taken_for_an_end(tmp_path):
    async with relayed(tmp_path) as (upstream, _, client), client.stream("GET", "/console/endless") as answer:
        upstream.broken.set()
        with pytest.raises(httpx.RemoteProtocolError):
            await answer.aread()


async def test_without_a_console_the_page_says_so_and_asks_again(tmp_path):
    relay = ConsoleRelay(tmp_path / "none.sock", Lifecycle(), structlog.stdlib.get_logger())
    transport = httpx.ASGITransport(relay)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        answer = await client.get("/console/login")
    await relay.close()
    assert answer.status_code == 503
    assert (answer.headers["retry-after"], answer.headers["refresh"]) == ("3", "3")
    assert "starting" in answer.text


@pytest.fixture
def installation(tmp_path_factory):
    made = Installation(tmp_path_factory.mktemp("relay"))
    yield made
    made.call("down")


def test_the_platforms_pages_have_a_process_and_requests_do_not_need_it(installation):
    key = key_in(installation.ok(*UP, "--tiers", "mistral-tiny"))
    state = read_state(installation.home)
    assert state is not None
    console = next(process for process in state.processes if process.name == "console")
    with httpx.Client(base_url=state.base_url, timeout=WAIT_S) as client:
        page = client.get("/console/login")
        assert page.status_code == 200
        assert page.headers["content-security-policy"]
        os.kill(console.pid, signal.SIGKILL)
        seen = set()
        deadline_s = time.monotonic() + WAIT_S
        while (status := client.get("/console/login").status_code) != 200 or not seen:
            seen.add(status)
            assert installation.chat(key).status_code == 200
            assert time.monotonic() < deadline_s
    assert seen == {503}


def test_what_the_caller_says_of_his_address_is_not_believed_behind_the_relay_either(installation):
    told = installation.ok(*UP, "--tiers", "mistral-tiny")
    link = next(word for word in told.split() if "/console/links/" in word)
    with httpx.Client(timeout=WAIT_S, headers={"x-forwarded-for": "6.6.6.6"}) as client:
        asked = {"email": "ada@example.com", "name": "Ada", "password": "correct horse battery staple"}
        done = client.post(link, data=asked, headers={"origin": link.partition("/console")[0]})
    assert done.status_code in {200, 204, 303}, done.text
    database = connect_database(f"sqlite:///{installation.home.root / 'tramontane.sqlite3'}")
    with database.reading() as session:
        places = session.scalars(select(ConsoleSession.address)).all()
    database.close()
    assert places == ["127.0.0.1"]
