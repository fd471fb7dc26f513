"""Callers whose Idempotency-Key was used before: they get what the first one got, and nothing runs again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from core.clock import Clock
from core.errors import ANSWER_EXPIRED, IDEMPOTENCY_MISMATCH, IDEMPOTENCY_RUNNING, UNAVAILABLE, PlatformError
from core.queue.base import Repeated, RequestState, SubmitterQueue
from core.wire import End
from gateway.desk import QUEUE_AWAY, ExchangeSettings
from gateway.replies import ClientLeft, Delta, Finished, Folded

MS_PER_S = 1_000


class Replayed:
    """An answer told again: the same id, text and usage. Nothing was admitted, and nothing is charged."""

    admitted = None

    def __init__(self, end: End) -> None:
        self.request_id = end.request_id
        self._end = end

    async def events(self) -> AsyncIterator[Delta | Finished]:
        """The whole of each choice at once."""
        end = self._end
        for choice, answer in enumerate(end.answers):
            if answer.text:
                yield Delta(choice, answer.text, len(answer.token_ids), answer.token_ids, answer.logprobs)
        yield Finished(end.finish_reasons, end.usage, end.cost_nano, end.vectors, end.ended_by)

    async def fold(self) -> Folded:
        end = self._end
        return Folded(end.answers, end.finish_reasons, end.usage, end.cost_nano, end.vectors, end.ended_by)

    def delivered(self, choice: int, token_count: int) -> None:
        """Nothing runs that could be stopped."""

    async def abandon(self) -> None:
        """Nothing runs that could be stopped."""

    def leave(self) -> None:
        """Nothing runs that could be stopped."""


class Repeats:
    """The answer is in the kept record alone: whoever waits for it asks there, ever more rarely."""

    def __init__(self, queue: SubmitterQueue, settings: ExchangeSettings, clock: Clock) -> None:
        self._queue = queue
        self._settings = settings
        self._clock = clock
        self._waiting = 0
        self._stopped = False

    def stop(self) -> None:
        """Let nobody wait any longer."""
        self._stopped = True

    async def recall(self, repeated: Repeated, left: asyncio.Event) -> Replayed | None:
        """None: the first request ended in a way that a repetition may cure; its key is free, so ask anew. `left` is
        set when the caller has gone. Raises PlatformError: another body, still streaming, no longer kept.
        """
        if not repeated.same_body:
            raise PlatformError(IDEMPOTENCY_MISMATCH, "This Idempotency-Key was used with another body.")
        if self._waiting >= self._settings.repeats_max:
            raise self._running()
        self._waiting += 1
        try:
            return await self._wait(repeated, left)
        finally:
            self._waiting -= 1

    async def _wait(self, repeated: Repeated, left: asyncio.Event) -> Replayed | None:
        pause_ms = self._settings.repeat_pause_ms
        until_s = self._clock.monotonic_s() + self._settings.repeat_wait_ms_max / MS_PER_S
        while True:
            try:
                standing = await self._queue.standing(repeated.request_id)
            except QUEUE_AWAY as error:
                raise PlatformError(UNAVAILABLE, "The queue cannot be reached; try again.", retry_after_s=1) from error
            if standing.state in {RequestState.SETTLED, RequestState.UNKNOWN}:
                return _replayed(standing.end)
            if repeated.streamed or self._stopped or self._clock.monotonic_s() >= until_s:
                raise self._running()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_ms / MS_PER_S):
                    await left.wait()
                raise ClientLeft
            pause_ms = min(2 * pause_ms, self._settings.repeat_pause_ms_max)

    def _running(self) -> PlatformError:
        message = "The first request with this Idempotency-Key still runs; try again later."
        return PlatformError(IDEMPOTENCY_RUNNING, message, retry_after_s=self._settings.repeat_retry_after_s)


def _replayed(end: End | None) -> Replayed | None:
    if end is not None and (end.error is not None or "error" in end.finish_reasons):
        return None
    if end is None or not (end.answers or end.vectors):
        message = "The request with this Idempotency-Key ran; its answer is no longer kept."
        raise PlatformError(ANSWER_EXPIRED, message)
    return Replayed(end)
