"""The strongest check: plain Python and Lua give the same answers to the same random life, step by step."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from tests.contracts.queue.operations import Operation, Player, operations
from tests.contracts.queue.world import memory_world, redis_world

EXAMPLES = 60
FULL = 10  # times as many, with --full
SHRINKING_S_MAX = 600  # spent only when they differ: the shortest such life is looked for


@pytest.mark.timeout(SHRINKING_S_MAX)
def test_memory_and_redis_answer_alike(bundled_socket: str, pytestconfig: pytest.Config):
    examples = EXAMPLES * FULL if pytestconfig.getoption("--full") else EXAMPLES

    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(operations)
    def alike(drawn: list[Operation]) -> None:
        asyncio.run(compare(bundled_socket, drawn))

    alike()


async def compare(socket: str, drawn: list[Operation]) -> None:
    async with memory_world() as plain, redis_world(socket) as lua:
        players = (Player(plain), Player(lua))
        for player in players:
            await player.start()
        for operation in drawn:
            ours, theirs = [await player.play(operation) for player in players]
            assert ours == theirs, operation
        heard = [{(lost.request_id, lost.attempt) for lost in await player.listen()} for player in players]
        assert heard[0] == heard[1]
        assert await players[0].snapshot() == await players[1].snapshot()
        for player in players:
            await player.end_all()
        events = [sorted(await player.world.usage_events(), key=lambda event: event.request_id) for player in players]
        assert [replace(event, settled_ms=0) for event in events[0]] == [
            replace(event, settled_ms=0) for event in events[1]
        ]
        assert await players[0].snapshot() == await players[1].snapshot()
