"""Pages over a real database, without a browser: what is shown, what is refused, what a form does."""

import pytest

from tests.admin_world import admin_world
from tests.console.world import ConsoleWorld
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


@pytest.fixture
async def console(database):
    """On both databases."""
    async with admin_world(database) as world:
        yield ConsoleWorld(world)


@pytest.fixture
async def quick_console(sqlite_database):
    """For what does not depend on the database."""
    async with admin_world(sqlite_database) as world:
        yield ConsoleWorld(world)
