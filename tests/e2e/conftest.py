"""What end-to-end tests share: a platform with the real engines, and a gateway over a queue in memory."""

import pytest
import pytest_asyncio

from tests.e2e.gateway_world import caller, gateway_world
from tests.e2e.installation import Installation


@pytest.fixture(scope="session")
def platform(tmp_path_factory):
    made = Installation(tmp_path_factory.mktemp("platform"), real_engines=True)
    made.ok("up", "--detach", "--port", "0")
    yield made
    made.ok("down")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world():
    async with gateway_world() as built:
        yield built


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(world):
    async with caller(world) as built:
        yield built
