"""Many callers on one connection: order, cancellation, silence, loss and return, over a real server."""

import asyncio
import signal

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from core.queue.patience import passes
from core.redis import Calls, connect
from tests.redis_servers import bundled_redis, newer_redis, redis_server

PASSWORD = "for-this-test"


@pytest.fixture
def server():
    with redis_server(bundled_redis()) as (process, socket):
        with Redis(unix_socket_path=str(socket)) as client:
            client.config_set("requirepass", PASSWORD)
        yield process, f"unix://:{PASSWORD}@{socket}"


@pytest.fixture
async def calls(server):
    client = connect(server[1], timeout_s=2.0)
    made = Calls(client, timeout_s=2.0)
    yield made
    await made.close()
    await client.aclose()


async def test_each_caller_gets_his_own_answer(calls):
    answers = await asyncio.gather(*(calls.command("ECHO", str(number)) for number in range(500)))
    assert answers == [str(number).encode() for number in range(500)]


async def test_one_connection_serves_them_all(calls):
    await asyncio.gather(*(calls.command("PING") for _ in range(100)))
    clients = await calls.command("CLIENT", "LIST")
    assert clients.count(b"\n") == 1


async def test_an_error_reaches_only_who_caused_it(calls):
    answers = await asyncio.gather(
        calls.command("ECHO", "before"),
        calls.command("NOSUCH"),
        calls.command("ECHO", "behind"),
        return_exceptions=True,
    )
    assert (answers[0], answers[2]) == (b"before", b"behind")
    assert isinstance(answers[1], ResponseError)


async def test_a_cancelled_caller_leaves_nothing_to_the_next(calls):
    for number in range(300):
        cancelled = asyncio.create_task(calls.command("ECHO", f"cancelled {number}"))
        await asyncio.sleep(0)
        cancelled.cancel()
        assert await calls.command("ECHO", f"kept {number}") == f"kept {number}".encode()


async def test_silence_ends_in_a_timeout_and_the_next_call_is_fresh(server):
    client = connect(server[1], timeout_s=2.0)
    impatient, other = Calls(client, timeout_s=0.2), Calls(client, timeout_s=5.0)
    try:
        await impatient.command("PING")
        await other.command("CLIENT", "PAUSE", 600)
        answers = await asyncio.gather(*(impatient.command("PING") for _ in range(3)), return_exceptions=True)
        assert all(isinstance(answer, RedisTimeoutError) for answer in answers)
        await other.command("PING")  # waits until the pause is over
        assert await impatient.command("PING") == b"PONG"
    finally:
        await impatient.close()
        await other.close()
        await client.aclose()


async def test_a_server_that_dies_is_told_to_all_who_wait(server, calls):
    await calls.command("PING")
    waiting = [asyncio.create_task(calls.command("BLPOP", "nothing", "1.5")) for _ in range(3)]
    await asyncio.sleep(0.05)
    server[0].send_signal(signal.SIGKILL)
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(answer, RedisConnectionError) for answer in answers)
    with pytest.raises((RedisConnectionError, RedisTimeoutError)):
        await calls.command("PING")


async def test_a_dropped_connection_is_made_anew(server, calls):
    await calls.command("PING")
    client = connect(server[1], timeout_s=2.0)
    await client.client_kill_filter(_type="normal", skipme=True)
    await client.aclose()
    answer = None
    for _ in range(3):
        try:
            answer = await calls.command("PING")
            break
        except RedisConnectionError:
            continue
    assert answer == b"PONG"


async def test_closed_it_tells_who_still_waits(calls):
    waiting = asyncio.create_task(calls.command("BLPOP", "nothing", "1.5"))
    await asyncio.sleep(0.05)
    await calls.close()
    with pytest.raises(RedisConnectionError):
        await waiting


WRITE = ("EVAL", "return redis.call('SET', KEYS[1], 'x')", 1, "key")


@pytest.mark.parametrize("binary", [bundled_redis, newer_redis])
@pytest.mark.parametrize("trouble", [("CONFIG", "SET", "maxmemory", "1mb"), ("REPLICAOF", "127.0.0.1", "1")])
@pytest.mark.parametrize("write", [WRITE, ("SET", "key", "x")])
async def test_a_server_that_cannot_write_for_now_is_waited_for(binary, trouble, write):
    with redis_server(binary()) as (_, socket):
        client = connect(f"unix://{socket}", timeout_s=2.0)
        calls = Calls(client)
        try:
            await calls.command("SET", "ballast", "x" * 2_000_000)
            await calls.command(*trouble)
            with pytest.raises(ResponseError) as caught:
                await calls.command(*write)
            assert passes(caught.value), caught.value
            with pytest.raises(ResponseError) as defect:
                await calls.command("EVAL", "return redis.call('NOSUCH')", 1, "key")
            assert not passes(defect.value)
        finally:
            await calls.close()
            await client.aclose()
