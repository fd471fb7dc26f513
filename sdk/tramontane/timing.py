"""Clock, chance and sleep, in one place that tests can replace (see `tramontane.testing`)."""

from __future__ import annotations

import random
import secrets
import time

import anyio

KEY_BYTES = 16


class _Sources:
    def now_s(self) -> float:
        """Of a clock that only goes forward."""
        return time.monotonic()

    def wall_s(self) -> float:
        """Since 1970: for dates in headers."""
        return time.time()

    def chance(self) -> float:
        """From 0 to 1: spreads retries, protects nothing."""
        return random.random()  # noqa: S311 - protects nothing

    def new_key(self) -> str:
        """An Idempotency-Key."""
        return secrets.token_hex(KEY_BYTES)


class Timing(_Sources):
    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class AsyncTiming(_Sources):
    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)
