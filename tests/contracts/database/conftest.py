from tests.databases import (
    _numbers,
    database,
    empty_url,
    postgres_server,
    postgres_url,
    sqlite_database,
    sqlite_url,
)

__all__ = [
    "_numbers",
    "database",
    "empty_url",
    "postgres_server",
    "postgres_url",
    "sqlite_database",
    "sqlite_url",
]
