"""Redis may be away for a while: what was to be said to it waits, and is said again. Nothing here gives up by itself;
the caller bounds what it keeps meanwhile, and for how long.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from structlog.stdlib import BoundLogger

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0
# Answers of a server that cannot write for now: full memory or disk, loading, a replica during a fail-over.
_PASSING = frozenset({"OOM", "MISCONF", "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS"})

Answer = TypeVar("Answer")


def passes(error: Exception) -> bool:
    """Whether time cures it; anything else is a defect and must surface."""
    if isinstance(error, OSError | RedisConnectionError | RedisTimeoutError):  # OSError has the builtin ones below it
        return True
    return isinstance(error, RedisError) and _code(error) in _PASSING


def _code(error: RedisError) -> str:
    """redis-py keeps the codes it knows apart from the message; the others still begin it."""
    return getattr(error, "status_code", None) or str(error).partition(" ")[0]


class Patience:
    """Shared by all who talk to the same Redis for one worker, so that an outage is logged once."""

    def __init__(self, log: BoundLogger) -> None:
        self._log = log
        self.away = False

    async def attempt(self, what: str, call: Callable[[], Awaitable[Answer]]) -> Answer | None:
        """The answer, or None if Redis is away."""
        try:
            answer = await call()
        except (OSError, RedisError) as error:
            if not passes(error):
                raise
            if not self.away:
                self.away = True
                self._log.warning("redis is away", call=what, reason=repr(error))
            return None
        if self.away:
            self.away = False
            self._log.info("redis is back")
        return answer

    async def insist(self, what: str, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer, however long it takes. For calls that may be repeated and whose answer is never None."""
        pause_s = FIRST_PAUSE_S
        while (answer := await self.attempt(what, call)) is None:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return answer
