"""One connection to Redis on which any number of callers talk at once: replies come in the order of the commands.

redis-py connects, encrypts, authenticates and selects; then its transport is given this protocol, which costs no task,
no timer and no stream for a command. All knowledge of how to take a transport over from redis-py is in this file.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
from redis._parsers.base import BaseParser
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from core.gathering import Gathering

# Redis 6 wraps what a script was refused in an error of its own; later ones say the refusal itself.
_IN_SCRIPT = re.compile(r"^ERR Error running script .*?: -([A-Z]+ .*)$", re.DOTALL)

LOST = "The connection to Redis was lost."


class Line(asyncio.Protocol):
    """Broken once, it is never used again: who waits is told, and `when_lost` is called."""

    def __init__(self, transport: asyncio.WriteTransport, timeout_s: float, when_lost: Callable[[], None]) -> None:
        self._transport = transport
        self._outgoing = Gathering(transport)
        self._before = transport.get_protocol()  # redis-py waits for its end when it closes the connection
        self._timeout_s = timeout_s
        self._when_lost = when_lost
        self._loop = asyncio.get_running_loop()
        self._replies = hiredis.Reader(protocolError=InvalidResponse, replyError=_error_of)
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._lost = False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def lost(self) -> bool:
        return self._lost

    def send(self, words: tuple[Any, ...], future: "asyncio.Future[Any]") -> None:
        """The future gets the reply, or a RedisError: also when nothing comes within `timeout_s`."""
        if self._lost:
            future.set_exception(RedisConnectionError(LOST))
            return
        self._waiting.append((future, self._loop.time()))
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s, self._look)
        self._outgoing.write(hiredis.pack_command(words))

    async def ask(self, *words: Any) -> Any:
        future: asyncio.Future[Any] = self._loop.create_future()
        self.send(words, future)
        return await future

    def data_received(self, data: bytes) -> None:
        try:
            self._replies.feed(data)
            while (reply := self._replies.gets()) is not False:
                self._answer(reply)
        except (InvalidResponse, IndexError) as error:
            self.fail(RedisConnectionError(f"Redis answered what cannot be read: {error!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._before.connection_lost(exc)
        self.fail(RedisConnectionError(LOST if exc is None else f"{LOST} {exc}"))

    def fail(self, error: RedisError) -> None:
        """Cut the connection; whoever waits gets the error."""
        if self._lost:
            return
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)
        self._when_lost()

    def _answer(self, reply: Any) -> None:
        future, _ = self._waiting.popleft()
        if future.done():  # its caller was cancelled meanwhile
            return
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _look(self) -> None:
        """Has the oldest command waited for too long? Then the rest behind it would, too."""
        self._timer = None
        if not self._waiting:
            return
        left_s = self._waiting[0][1] + self._timeout_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self.fail(RedisTimeoutError(f"Redis did not answer within {self._timeout_s} s"))


def _error_of(reply: str) -> Exception:
    inner = _IN_SCRIPT.match(reply)
    error: Exception = BaseParser.parse_error(reply if inner is None else inner.group(1))  # type: ignore[no-untyped-call]  # redis-py
    return error


async def open_line(
    pool: ConnectionPool, timeout_s: float, when_lost: Callable[[], None]
) -> tuple[Line, AbstractConnection]:
    """Raises RedisError or OSError. Give the connection back to its pool, disconnected, when the line is lost."""
    connection: AbstractConnection = await pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py
    writer = connection._writer  # noqa: SLF001 - redis-py has no public way to its transport
    assert writer is not None, "the pool hands out connected connections"
    line = Line(writer.transport, timeout_s, when_lost)
    writer.transport.set_protocol(line)
    return line, connection


async def close_line(pool: ConnectionPool, line: Line | None, connection: AbstractConnection) -> None:
    """`line` None: it was lost before."""
    if line is not None:
        line.fail(RedisConnectionError("The connection to Redis was closed."))
    await connection.disconnect(nowait=True)
    await pool.release(connection)
