"""Asking a gateway whether it is ready, over HTTP as anybody else would."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable

LOOK_S = 0.1
ASK_S = 3.0


def ready_url(base_url: str) -> str:
    return f"{base_url}/health/ready"


def is_ready(url: str) -> bool:
    """Whether it answers 200; blocks for at most ASK_S."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy has no business on loopback
    try:
        with opener.open(url, timeout=ASK_S) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


async def wait_for_ready(url: str, pause: Callable[[float], Awaitable[None]]) -> None:
    """`pause` raises when a process has ended."""
    while not await asyncio.to_thread(is_ready, url):
        await pause(LOOK_S)
