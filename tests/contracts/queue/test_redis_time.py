"""In production nobody tells the scripts the time: Redis's own clock counts."""

from redis.asyncio import Redis

from core.meter.credit_redis import RedisCreditStore
from core.queue.base import Admitted
from core.queue.redis import RedisSubmitterQueue
from tests.contracts.queue.world import RICH_NANO, SETTINGS, memory_world


async def test_without_a_clock_the_time_is_that_of_redis(bundled_socket: str):
    async with Redis(unix_socket_path=bundled_socket) as client, memory_world() as world:
        await client.flushall()
        gateway = RedisSubmitterQueue(client, SETTINGS, "g1")
        await gateway.open()
        funds = RedisCreditStore(client, SETTINGS.cell)
        assert await funds.open_epoch(1)
        assert await funds.give("gift", "acme", 1, RICH_NANO)
        before_ms = await redis_ms(client)
        answer = await gateway.admit(world.admission(world.job(deadline_ms=before_ms + 60_000)))
        assert isinstance(answer, Admitted)
        assert before_ms <= answer.admitted_ms <= await redis_ms(client)
        await gateway.close()
        await funds.close()


async def redis_ms(client: Redis) -> int:
    seconds, microseconds = await client.time()
    return seconds * 1_000 + microseconds // 1_000
