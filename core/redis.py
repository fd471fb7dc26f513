"""One way to talk to Redis: bounded, pipelined, safe to cancel.

`Calls` gathers what is asked for during one round trip into the next one, over one connection that no caller ever
holds: hundreds of callers need one socket, and a caller that is cancelled cannot leave its reply to the next.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

BLOCK_S_MAX = 1.0
CALL_S = 2.0
BATCH_CALLS_MAX = 256
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
        self.name = name
        self.source = "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in (*parts, name))
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class Calls:
    """Commands and scripts, batched. Raises what Redis answers, or its TimeoutError after `timeout_s`."""

    def __init__(self, client: "Redis", timeout_s: float = CALL_S) -> None:
        self._pool = client.connection_pool
        self._timeout_s = timeout_s
        self._connection: AbstractConnection | None = None
        self._pending: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._pump: asyncio.Task[None] | None = None

    async def command(self, *words: Any) -> Any:
        return await self._ask(words)

    async def commands(self, many: Sequence[tuple[Any, ...]]) -> list[Any]:
        """All answers in order, from as few round trips as there can be; raises the first error."""
        asked = [self._ask(words) for words in many]
        try:
            return [await future for future in asked]
        except BaseException:
            _forget(asked)
            raise

    async def script(self, script: Script, key: str, *arguments: Any) -> Any:
        (answer,) = await self.scripts(script, key, [arguments])
        return answer

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
        if self._pump is not None and not self._pump.done():
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        await self._drop_connection()

    def _ask(self, words: tuple[Any, ...]) -> asyncio.Future[Any]:
        if len(self._pending) >= PENDING_CALLS_MAX:
            raise RedisTimeoutError(f"more than {PENDING_CALLS_MAX} calls wait for Redis")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending.append((words, future))
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._drain())
        return future

    async def _drain(self) -> None:
        while self._pending:
            batch, self._pending = self._pending[:BATCH_CALLS_MAX], self._pending[BATCH_CALLS_MAX:]
            try:
                async with asyncio.timeout(self._timeout_s):
                    answers = await self._round_trip([words for words, _ in batch])
            except TimeoutError:
                answers = [RedisTimeoutError(f"Redis did not answer within {self._timeout_s} s")] * len(batch)
            except (RedisError, OSError) as error:
                answers = [error] * len(batch)
            except asyncio.CancelledError:
                for _, future in batch + self._pending:
                    future.cancel()
                raise
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():  # its caller was cancelled meanwhile
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    async def _round_trip(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """All commands in one write. A connection that failed, or was left in mid-answer, is never used again."""
        if self._connection is None:
            self._connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py
            self._connection.socket_timeout = None  # the batch is bounded as a whole: see _drain
        connection = self._connection
        answers: list[Any] = []
        try:
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            for _ in commands:
                try:
                    answers.append(await connection.read_response())
                except ResponseError as error:
                    answers.append(error)
        except BaseException:
            await self._drop_connection()
            raise
        return answers

    async def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.socket_timeout = self._timeout_s
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)


def _forget(asked: Sequence["asyncio.Future[Any]"]) -> None:
    """Nobody waits for these any more; their errors are the one that is being raised."""
    for future in asked:
        if future.done() and not future.cancelled():
            future.exception()
        future.cancel()
