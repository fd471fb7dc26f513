from tests.databases import (
    _migrated,
    _numbers,
    database,
    database_url,
    empty_url,
    migrated_postgres_url,
    migrated_sqlite_url,
    postgres_server,
    postgres_url,
    sqlite_database,
    sqlite_url,
)

__all__ = [
    "_migrated",
    "_numbers",
    "database",
    "database_url",
    "empty_url",
    "migrated_postgres_url",
    "migrated_sqlite_url",
    "postgres_server",
    "postgres_url",
    "sqlite_database",
    "sqlite_url",
]
