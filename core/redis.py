"""One way to talk to Redis: bounded, pipelined, safe to cancel.

All callers of a `Calls` share one connection that none of them holds: hundreds need one socket, what is asked for in
the same moment travels together, and a caller that is cancelled cannot leave its reply to the next.
"""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from core.redis_line import LOST, Line, close_line, open_line

BLOCK_S_MAX = 1.0
CALL_S = 2.0
PENDING_CALLS_MAX = 20_000
CONNECTIONS_MAX = 32


def connect(url: str, timeout_s: float) -> "Redis":
    """A client whose every read is bounded; blocking reads may wait BLOCK_S_MAX on top."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS_MAX,
        timeout=timeout_s,
        socket_timeout=timeout_s + BLOCK_S_MAX,
        socket_connect_timeout=timeout_s,
        health_check_interval=0,
        decode_responses=False,
    )
    return Redis.from_pool(pool)


class Script:
    """A Lua script of `core/meter/scripts`, behind the functions that all of them share."""

    def __init__(self, name: str, *parts: str) -> None:
        folder = resources.files("core.meter") / "scripts"
        self.source = "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in (*parts, name))
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


def run_id(server_info: bytes) -> str:
    """Which server answered INFO server: a restart gives it another one."""
    (found,) = re.findall(rb"^run_id:(\w+)\r?$", server_info, re.MULTILINE)
    return str(found, "ascii")


class Calls:
    """Commands and scripts. Raises what Redis answers, or its ConnectionError or TimeoutError after `timeout_s`.

    `guard`: a script and its key, which each new connection runs with the server's run_id before anything else.
    """

    def __init__(self, client: "Redis", timeout_s: float = CALL_S, guard: tuple[Script, str] | None = None) -> None:
        self._pool = client.connection_pool
        self._timeout_s = timeout_s
        self._guard = guard
        self._line: Line | None = None
        self._connection: AbstractConnection | None = None
        self._unsent: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._connecting: asyncio.Task[None] | None = None

    async def command(self, *words: Any) -> Any:
        return await self._ask(words)

    async def commands(self, many: Sequence[tuple[Any, ...]]) -> list[Any]:
        """All answers in order, of one round trip; raises the first error."""
        asked = [self._ask(words) for words in many]
        try:
            return [await future for future in asked]
        except BaseException:
            _forget(asked)
            raise

    async def scripts(self, script: Script, key: str, many: Sequence[tuple[Any, ...]]) -> list[Any]:
        """One run for each tuple of arguments."""
        asked = [self._ask(("EVALSHA", script.sha, 1, key, *arguments)) for arguments in many]
        answers = []
        try:
            for future, arguments in zip(asked, many, strict=True):
                try:
                    answers.append(await future)
                except NoScriptError:
                    answers.append(await self._ask(("EVAL", script.source, 1, key, *arguments)))
        except BaseException:
            _forget(asked)
            raise
        return answers

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        await self._drop()

    def _ask(self, words: tuple[Any, ...]) -> asyncio.Future[Any]:
        line = self._line
        if len(self._unsent) + (0 if line is None else line.waiting) >= PENDING_CALLS_MAX:
            raise RedisTimeoutError(f"more than {PENDING_CALLS_MAX} calls wait for Redis")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if line is not None:
            line.send(words, future)
            return future
        self._unsent.append((words, future))
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        return future

    async def _connect(self) -> None:
        error: RedisError = RedisConnectionError("The connection to Redis was closed.")
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._drop()
                line, self._connection = await open_line(self._pool, self._timeout_s, self._lost)
                await self._greet(line)
                self._line = line
        except TimeoutError:
            error = RedisTimeoutError(f"Redis did not accept a connection within {self._timeout_s} s")
        except RedisError as refused:
            error = refused
        except OSError as unreachable:
            error = RedisConnectionError(f"Redis cannot be reached: {unreachable}")
        finally:
            unsent, self._unsent = self._unsent, []
            for words, future in unsent:
                if future.done():
                    continue
                if self._line is None:
                    future.set_exception(error)
                else:
                    self._line.send(words, future)

    async def _greet(self, line: Line) -> None:
        """Nothing else travels on a line before its guard has run. Raises; then the line is cut."""
        if self._guard is None:
            return
        script, key = self._guard
        try:
            server = run_id(await line.ask("INFO", "server"))
            await line.ask("EVAL", script.source, 1, key, "", server)
        except BaseException:
            line.fail(RedisConnectionError(LOST))
            raise
        if line.lost:  # between its answer and now
            raise RedisConnectionError(LOST)

    def _lost(self) -> None:
        self._line = None

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        line, self._line = self._line, None
        if connection is not None:
            await close_line(self._pool, line, connection)


def _forget(asked: Sequence["asyncio.Future[Any]"]) -> None:
    """Nobody waits for these any more; their errors are the one that is being raised."""
    for future in asked:
        if future.done() and not future.cancelled():
            future.exception()
        future.cancel()
