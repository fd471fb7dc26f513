"""What all conversations of a process share: the queue, the bounds, and the word that stops a request for good."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from redis.exceptions import RedisError
from structlog.stdlib import BoundLogger

from core.clock import Clock
from core.queue.base import Outcome, Standing, SubmitterQueue

# What a queue raises when it cannot be reached, or cannot serve now (full, read-only, loading).
QUEUE_AWAY = (RedisError, OSError)


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    """`queue_wait`, `first_token` and `idle` are the three clocks of a request. `settle_grace_ms` is how long a settled
    request may still wait for text that is on its way; `overshoot_tokens` is what a client that leaves pays at most
    beyond what it was handed; `text_chars_max` is unread text of one request. `repeat_*` concern callers that wait for
    the answer to an Idempotency-Key: how often the record is asked, how many may wait, and for how long.
    """

    lease_ms: int
    queue_wait_ms_max: int = 120_000
    first_token_ms_max: int = 120_000
    idle_ms_max: int = 60_000
    keepalive_ms: int = 10_000
    settle_grace_ms: int = 1_000
    away_retry_ms: int = 250
    away_retry_ms_max: int = 2_000
    receive_wait_ms: int = 1_000
    tick_ms: int = 250
    reap_every_ms: int = 1_000
    text_chars_max: int = 262_144
    open_max: int = 20_000
    overshoot_tokens: int = 32
    busy_retry_after_s: int = 10
    watch_every_ms: int = 1_000
    repeat_pause_ms: int = 25
    repeat_pause_ms_max: int = 1_000
    repeat_wait_ms_max: int = 920_000
    repeat_retry_after_s: int = 2
    repeats_max: int = 2_000


@dataclass(frozen=True, slots=True)
class Desk:
    """`spawn` keeps a task for as long as it runs; `closed` is told the id of a request that is over."""

    queue: SubmitterQueue
    settings: ExchangeSettings
    clock: Clock
    log: BoundLogger
    spawn: Callable[[Coroutine[object, object, None]], asyncio.Task[None]]
    closed: Callable[[str], None]

    async def stop(
        self, request_id: str, deadline_ms: int, outcome: Outcome, completion_tokens_max: int = 0
    ) -> Standing | None:
        """Cancel. None: the queue is away; it is told as soon as it is back, else the request would run on and be
        charged in full.
        """
        try:
            return await self.queue.cancel(request_id, completion_tokens_max, outcome)
        except QUEUE_AWAY as error:
            self.log.warning("queue away, cancel postponed", request_id=request_id, error=type(error).__name__)
            self.spawn(self._insist(request_id, deadline_ms, outcome, completion_tokens_max))
            return None

    async def _insist(self, request_id: str, deadline_ms: int, outcome: Outcome, completion_tokens_max: int) -> None:
        while self.clock.now_ms() < deadline_ms:
            await asyncio.sleep(self.settings.away_retry_ms_max / 1_000)
            try:
                await self.queue.cancel(request_id, completion_tokens_max, outcome)
            except QUEUE_AWAY:
                continue
            return
