"""Wakes whoever waits: something may have changed, look again."""

import asyncio


class Bell:
    def __init__(self) -> None:
        self._waiting: set[asyncio.Event] = set()

    def ring(self) -> None:
        for event in self._waiting:
            event.set()

    async def wait(self, seconds: float) -> None:
        """Until the next ring, or that long."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            async with asyncio.timeout(seconds):  # wait_for of 3.11 loses a cancellation that meets the ring
                await event.wait()
        except TimeoutError:
            pass  # the caller looks again either way
        finally:
            self._waiting.discard(event)
