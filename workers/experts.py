"""From an engine's counts of chosen experts to the log that billing collects: a few requests, once at their end."""

import asyncio
from collections import deque
from zlib import crc32

from redis.exceptions import RedisError
from structlog.stdlib import BoundLogger

from core.experts import ExpertLog, ExpertSample

WAITING_MAX = 128  # samples; the oldest are dropped first
CLOSE_S = 1.0


class ExpertReporter:
    """One of `one_in` requests is counted, by its id, so that no attempt decides anew; 0: none. What cannot be sent is
    lost: these are statistics.
    """

    def __init__(self, log: ExpertLog, one_in: int, logger: BoundLogger) -> None:
        self._log = log
        self._one_in = one_in
        self._logger = logger
        self._waiting: deque[ExpertSample] = deque(maxlen=WAITING_MAX)
        self._sending: asyncio.Task[None] | None = None

    def wants(self, request_id: str) -> bool:
        return self._one_in > 0 and crc32(request_id.encode()) % self._one_in == 0

    def put(self, sample: ExpertSample) -> None:
        self._waiting.append(sample)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())

    async def close(self) -> None:
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=CLOSE_S)
            self._sending.cancel()
        await self._log.close()

    async def _send(self) -> None:
        while self._waiting:
            samples = list(self._waiting)
            self._waiting.clear()
            try:
                await self._log.append(samples)
            except (OSError, RedisError) as error:
                self._logger.warning("expert statistics lost", samples=len(samples), reason=type(error).__name__)
