"""A closed-loop load: N callers, each on its own kept-alive connection, one request after another.

Raw asyncio on purpose: the load generator must cost far less than what it measures.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

HEAD_BYTES_MAX = 64 * 1024


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


async def caller(target: Target, until: float, latencies_ms: list[float]) -> None:
    reader, writer = await asyncio.open_connection(target.host, target.port, limit=HEAD_BYTES_MAX)
    try:
        while time.perf_counter() < until:
            started = time.perf_counter()
            writer.write(target.request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"not a 200: {head[:200]!r}")
            await read_body(reader, head.lower())
            latencies_ms.append((time.perf_counter() - started) * 1000)
    finally:
        writer.close()


async def read_body(reader: asyncio.StreamReader, head: bytes) -> None:
    if b"transfer-encoding: chunked" in head:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
        return
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    await reader.readexactly(length)


async def measure(target: Target, callers: int, seconds: float) -> dict[str, float]:
    latencies_ms: list[float] = []
    started = time.perf_counter()
    await asyncio.gather(*(caller(target, started + seconds, latencies_ms) for _ in range(callers)))
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
    json.dump(asyncio.run(measure(target, args.callers, args.seconds)), sys.stdout)


if __name__ == "__main__":
    main()
