"""Time limits and cancellation over real sockets."""

import asyncio
import threading
import time
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest
import trio

from tramontane import AsyncTramontane, ConnectFailed, Retries, StreamInterrupted, TimedOut, Timeouts, Tramontane

ASK = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BOUND_S = 20.0
ONCE = Retries(tries_max=1)
QUICK = Timeouts(connect_s=5, first_token_s=0.2, idle_s=0.2, total_s=5)


def chunk(raw: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(raw), raw)


def event(text: str) -> bytes:
    return chunk(
        b'data: {"id":"i","model":"m","choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
        % text.encode()
    )


class Server(ThreadingTCPServer):
    """Sends each connection the same pieces, then holds it until the client leaves."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *pieces: bytes, pause_s: float = 0.0, holds: bool = True) -> None:
        self.left = threading.Event()
        self.pieces, self.pause_s, self.holds = pieces, pause_s, holds
        super().__init__(("127.0.0.1", 0), Handler)

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *args):
        self.shutdown()
        super().__exit__(*args)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseRequestHandler):
    def handle(self):
        received = b""
        while not received.endswith(b"}"):
            received += self.request.recv(65_536)
        for piece in self.server.pieces:
            self.request.sendall(piece)
            time.sleep(self.server.pause_s)
        if self.server.holds:
            self.request.settimeout(BOUND_S)
            assert self.request.recv(1) == b""
            self.server.left.set()


def test_silence_before_the_first_token():
    with Server() as server, Tramontane(api_key="k", base_url=server.url, timeouts=QUICK, retries=ONCE) as client:
        with pytest.raises(TimedOut) as caught:
            list(client.chat.stream(**ASK))
        assert caught.value.phase == "first_token"
        assert server.left.wait(BOUND_S)


def test_comments_are_no_first_token():
    comments = [HEAD, *[chunk(b": queued\n\n")] * 50]
    with Server(*comments, pause_s=0.05) as server:
        with Tramontane(api_key="k", base_url=server.url, timeouts=QUICK, retries=ONCE) as client:
            with pytest.raises(TimedOut) as caught:
                list(client.chat.stream(**ASK))
            assert caught.value.phase == "first_token"


def test_silence_in_the_middle():
    patient = Timeouts(first_token_s=BOUND_S, idle_s=0.2)
    with Server(HEAD, event("Hel")) as server:
        with Tramontane(api_key="k", base_url=server.url, timeouts=patient, retries=ONCE) as client:
            with pytest.raises(TimedOut) as caught:
                list(client.chat.stream(**ASK))
            assert caught.value.phase == "idle"
        assert server.left.wait(BOUND_S)


def test_everything_ends():
    hasty = Timeouts(total_s=0.3)
    with Server(HEAD, *[event("x")] * 100, pause_s=0.02) as server:
        with Tramontane(api_key="k", base_url=server.url, timeouts=hasty, retries=ONCE) as client:
            with pytest.raises(TimedOut) as caught:
                list(client.chat.stream(**ASK))
            assert caught.value.phase == "total"
            with pytest.raises(TimedOut) as caught:
                client.chat.complete(**ASK)
            assert caught.value.phase == "total"


def test_a_connection_that_breaks():
    with Server(HEAD, event("Hel"), holds=False) as server:
        with Tramontane(api_key="k", base_url=server.url, retries=ONCE) as client:
            with pytest.raises(StreamInterrupted) as caught:
                list(client.chat.stream(**ASK))
            assert caught.value.text == "Hel"


def test_nobody_listens():
    with Server() as server:
        url = server.url
    with Tramontane(api_key="k", base_url=url, retries=Retries(tries_max=2, backoff_s=0.01)) as client:
        with pytest.raises(ConnectFailed):
            client.chat.complete(**ASK)


def test_leaving_hangs_up():
    with Server(HEAD, event("Hel")) as server, Tramontane(api_key="k", base_url=server.url) as client:
        with client.chat.stream(**ASK) as stream:
            assert next(iter(stream.texts())) == "Hel"
        assert server.left.wait(BOUND_S)


async def test_a_cancelled_task_hangs_up():
    begun = asyncio.Event()

    async def read(client):
        async with client.chat.stream(**ASK) as stream:
            async for _ in stream:
                begun.set()

    with Server(HEAD, event("Hel")) as server:
        async with AsyncTramontane(api_key="k", base_url=server.url) as client:
            task = asyncio.create_task(read(client))
            await asyncio.wait_for(begun.wait(), BOUND_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.left.wait, BOUND_S)


def test_it_runs_on_trio_too():
    async def run(url):
        async with AsyncTramontane(api_key="k", base_url=url, retries=Retries(tries_max=2, backoff_s=0.01)) as client:
            async with client.chat.stream(**ASK) as stream:
                async for text in stream.texts():
                    assert text == "Hel"
                    break
            with pytest.raises(TimedOut):
                await client.with_options(timeouts=Timeouts(total_s=0.2)).chat.complete(**ASK)

    with Server(HEAD, event("Hel")) as server:
        trio.run(run, server.url)
        assert server.left.wait(BOUND_S)
