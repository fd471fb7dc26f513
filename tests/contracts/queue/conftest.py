"""Every contract test runs over every implementation: plain Python, the oldest Redis, a newer one, a cluster node."""

from collections.abc import AsyncIterator
from functools import partial

import pytest

from tests.contracts.queue.world import World, WorldMaker, memory_world, redis_world

SOCKETS = {"redis-bundled": "bundled_socket", "redis-newer": "newer_socket", "redis-cluster": "cluster_socket"}


@pytest.fixture(params=["memory", *SOCKETS])
def new_world(request: pytest.FixtureRequest) -> WorldMaker:
    """Makes an empty world; an earlier one of the same test is gone then."""
    if request.param == "memory":
        return memory_world
    return partial(redis_world, request.getfixturevalue(SOCKETS[request.param]))


@pytest.fixture
async def world(new_world: WorldMaker) -> AsyncIterator[World]:
    async with new_world() as made:
        yield made


@pytest.fixture
async def blank_world(new_world: WorldMaker) -> AsyncIterator[World]:
    """No epoch was ever opened."""
    async with new_world(epoch=0) as made:
        yield made
