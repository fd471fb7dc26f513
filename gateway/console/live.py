"""Parts of a page that change while one looks: a stream of server-sent events, each the new HTML of its part."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from starlette.responses import StreamingResponse

from core.clock import Clock
from core.errors import UNAVAILABLE, PlatformError
from gateway.services import Lifecycle

OPEN_MAX = 200  # streams of this process; each costs a few queries every EVERY_S
EVERY_S = 2.0
LOOK_S = 0.25
AGE_S_MAX = 3_600.0  # the browser then connects again, as whoever he is by then
EVENT_STREAM = "text/event-stream"

Parts = Mapping[str, str]


class LiveParts:
    """`produce` answers the HTML of each part by its event's name, and raises PlatformError when the one who looks may
    no longer; only what has changed is sent.
    """

    def __init__(self, lifecycle: Lifecycle, clock: Clock) -> None:
        self._lifecycle = lifecycle
        self._clock = clock
        self._open = 0

    def response(self, produce: Callable[[], Awaitable[Parts]]) -> StreamingResponse:
        """Raises PlatformError (UNAVAILABLE) when too many look already."""
        if self._open >= OPEN_MAX:
            raise PlatformError(
                UNAVAILABLE, "Too many pages are live at the moment; this one is not.", retry_after_s=30
            )
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(self._events(produce), media_type=EVENT_STREAM, headers=headers)

    async def _events(self, produce: Callable[[], Awaitable[Parts]]) -> AsyncIterator[bytes]:
        self._open += 1
        began_s, sent = self._clock.monotonic_s(), dict[str, str]()
        try:
            while not self._lifecycle.draining and self._clock.monotonic_s() - began_s < AGE_S_MAX:
                try:
                    parts = await produce()
                except PlatformError:
                    return  # the browser asks again and is told in full
                changed = {name: text for name, text in parts.items() if sent.get(name) != text}
                sent.update(changed)
                yield b"".join(event(name, text) for name, text in changed.items()) or b": nothing new\n\n"
                await self._pause()
        finally:
            self._open -= 1

    async def _pause(self) -> None:
        """So short that a gateway that stops is not held up."""
        for _ in range(int(EVERY_S / LOOK_S)):
            if self._lifecycle.draining:
                return
            await asyncio.sleep(LOOK_S)


def event(name: str, text: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in text.splitlines() or [""])
    return f"event: {name}\n{lines}\n".encode()
