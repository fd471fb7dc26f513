"""Questions to SQL from an event loop: one for all who ask the same at once, bounded in number and time."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from core.clock import Clock
from core.db import DatabaseUnavailableError

Answer = TypeVar("Answer")


class Lookups(Generic[Answer]):
    """Used from one event loop. `wait_s`: how long a caller waits; `pause_s`: how long SQL is left alone after it
    failed; beyond `running_max` questions nobody asks another.
    """

    def __init__(self, clock: Clock, *, running_max: int, wait_s: float, pause_s: float) -> None:
        self._clock = clock
        self._running_max = running_max
        self._wait_s = wait_s
        self._pause_s = pause_s
        self._pending: dict[str, asyncio.Task[Answer | None]] = {}
        self._running: set[asyncio.Task[Answer | None]] = set()
        self._paused_until_s = 0.0

    async def ask(self, key: str, read: Callable[[], Answer], keep: Callable[[Answer], None]) -> Answer | None:
        """What `read` answers, in a thread; None when SQL does not answer. `keep` gets an answer that nothing has
        made outdated, once.
        """
        if self._clock.monotonic_s() < self._paused_until_s:
            return None
        task = self._pending.get(key)
        if task is None:
            if len(self._running) >= self._running_max:
                return None
            task = asyncio.create_task(self._run(key, read, keep))
            self._pending[key] = task
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        try:
            async with asyncio.timeout(self._wait_s):
                return await asyncio.shield(task)  # a caller who leaves does not end it for the others
        except TimeoutError:
            self._pause()
            return None

    def outdate(self, key: str) -> None:
        """A question under way may have been answered before something changed: who asks now asks anew."""
        self._pending.pop(key, None)

    async def _run(self, key: str, read: Callable[[], Answer], keep: Callable[[Answer], None]) -> Answer | None:
        answer = None
        try:
            answer = await asyncio.to_thread(read)
        except DatabaseUnavailableError:
            self._pause()
        finally:
            current = self._pending.get(key) is asyncio.current_task()
            if current:
                del self._pending[key]
        if current and answer is not None:
            keep(answer)
        return answer

    def _pause(self) -> None:
        self._paused_until_s = self._clock.monotonic_s() + self._pause_s
