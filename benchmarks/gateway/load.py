"""A closed-loop load: N callers, each on its own kept-alive connection, one request after another.

A bare protocol on purpose: the load generator shares the cores with what it measures, and must cost far less.
"""

import argparse
import asyncio
import json
import re
import statistics
import sys
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import uvloop

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    host: str
    port: int
    request: bytes


def make_target(url: str, key: str, model: str, max_tokens: int) -> Target:
    parts = urlsplit(url)
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": "Say something short about the wind."}],
            "max_tokens": max_tokens,
        }
    ).encode()
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nAccept: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    assert parts.hostname is not None
    return Target(parts.hostname, parts.port or 80, head.encode() + body)


class Caller(asyncio.Protocol):
    """Sends the next request when the answer to the last one is complete; `done` is set when the time is over."""

    def __init__(self, target: Target, until: float, latencies_ms: list[float]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = target.request
        self._until = until
        self._latencies_ms = latencies_ms
        self._received = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP, so both ways
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not is_complete(self._received):
            return
        if not self._received.startswith(b"HTTP/1.1 200"):
            self._end(RuntimeError(f"not a 200: {self._received[:200]!r}"))
            return
        self._latencies_ms.append((time.perf_counter() - self._started) * 1000)
        if time.perf_counter() < self._until:
            self._ask()
        else:
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(RuntimeError(f"the connection was lost: {exc}"))

    def _ask(self) -> None:
        self._received = b""
        self._started = time.perf_counter()
        self._transport.write(self._request)

    def _end(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
        self._transport.close()


def is_complete(received: bytes) -> bool:
    """Whether head and body of one answer are here."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return False
    length = CONTENT_LENGTH.search(head)
    if length is None:  # chunked
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= int(length.group(1))


async def measure(target: Target, callers: int, seconds: float) -> dict[str, float]:
    latencies_ms: list[float] = []
    started = time.perf_counter()
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Caller(target, started + seconds, latencies_ms), target.host, target.port)
        for _ in range(callers)
    ]
    await asyncio.gather(*(caller.done for _, caller in made))
    elapsed = time.perf_counter() - started
    cuts = statistics.quantiles(latencies_ms, n=100)
    return {
        "requests": len(latencies_ms),
        "requests_per_s": len(latencies_ms) / elapsed,
        "p50_ms": cuts[49],
        "p99_ms": cuts[98],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--key", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--callers", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--max-tokens", type=int, default=16)
    args = parser.parse_args()
    target = make_target(args.url, args.key, args.model, args.max_tokens)
    json.dump(uvloop.run(measure(target, args.callers, args.seconds)), sys.stdout)


if __name__ == "__main__":
    main()
