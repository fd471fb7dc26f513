"""What end-to-end tests share: a platform with the real engines, and a gateway over a queue in memory."""

import pytest
import pytest_asyncio

from tests.conformance.document import CheckedClient, Document
from tests.databases import (
    _migrated,
    _numbers,
    database,
    database_url,
    migrated_postgres_url,
    migrated_sqlite_url,
    postgres_server,
    sqlite_database,
    sqlite_url,
)
from tests.e2e.gateway_world import AUTH, WAIT_S, gateway_world
from tests.e2e.installation import Installation

__all__ = [
    "_migrated",
    "_numbers",
    "database",
    "database_url",
    "migrated_postgres_url",
    "migrated_sqlite_url",
    "postgres_server",
    "sqlite_database",
    "sqlite_url",
]


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
    """Every answer that it reads is held against the OpenAPI document."""
    document = Document(world.server.config.loaded_app.openapi())
    async with CheckedClient(document, base_url=world.url, headers=AUTH, timeout=WAIT_S) as built:
        yield built
