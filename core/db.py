"""SQL: how to reach it, and the one place that commits.

Everything here is synchronous; asynchronous callers go through `asyncio.to_thread`. Times are integer milliseconds
since 1970-01-01 UTC and money is integer nano-units, both BIGINT.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Connection, Engine, MetaData, Table, create_engine, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import DeclarativeBase, Session

from core.errors import SetupError

POSTGRES_SCHEMES = frozenset({"postgres", "postgresql", "postgresql+psycopg"})
CONNECTIONS_MAX = 8
POOL_WAIT_S = 2.0
CONNECT_S = 3
SILENCE_MS = 10_000  # of a server that no longer acknowledges what was sent
STATEMENT_MS = 15_000
LOCK_MS = 5_000
_READING = "tramontane_reading"


class Base(DeclarativeBase):
    """All tables. The names of constraints are fixed, so that migrations can speak of them on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {int: BigInteger}  # noqa: RUF012 - SQLAlchemy's own way of declaring it


class DatabaseUnavailableError(Exception):
    """SQL is away, too slow, locked or full: the same call may well succeed later."""


class Database:
    """A pool of at most CONNECTIONS_MAX connections; every call below is bounded in time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reading = engine.execution_options(**{_READING: True, "postgresql_readonly": True})

    @contextmanager
    def unit_of_work(self) -> Iterator[Session]:
        """One transaction that may write: committed at the end, rolled back by an exception. Nobody else commits.

        Raises DatabaseUnavailableError when SQL is away.
        """
        with _trouble_named(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One transaction that only reads, and on SQLite does not wait for writers."""
        with _trouble_named(), Session(self._reading, expire_on_commit=False) as session:
            yield session

    def check(self) -> None:
        """Ask one trivial question. Raises DatabaseUnavailableError."""
        with self.reading() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        self._engine.dispose()


def connect_database(url: str, *, migrating: bool = False) -> Database:
    """Prepare a pool; nothing is connected yet. Raises SetupError with one sentence for a URL that cannot work.

    `migrating`: statements may take long, and SQLite checks foreign keys at the end instead of at each statement.
    """
    parsed = parse_database_url(url)
    if parsed.drivername == "sqlite":
        return Database(_sqlite_engine(parsed, migrating=migrating))
    return Database(_postgres_engine(parsed, migrating=migrating))


def parse_database_url(url: str) -> URL:
    """Raises SetupError with one sentence that does not repeat the URL: it may hold a password."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SetupError("TRAMONTANE_DATABASE_URL is not a URL such as postgresql://user@host/name.") from error
    if parsed.drivername in POSTGRES_SCHEMES:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername != "sqlite":
        raise SetupError(f"TRAMONTANE_DATABASE_URL: {parsed.drivername} is neither postgresql nor sqlite.")
    if sqlite_file(parsed) is None:
        raise SetupError("TRAMONTANE_DATABASE_URL: SQLite in memory cannot be shared by processes; name a file.")
    return parsed


def sqlite_file(parsed: URL) -> Path | None:
    """The file behind a SQLite URL; None for Postgres and for SQLite in memory."""
    if parsed.drivername != "sqlite" or parsed.database in {None, "", ":memory:"}:
        return None
    return Path(str(parsed.database))


def insert_new(session: Session, model: type[Base], rows: Sequence[Mapping[str, Any]], unique: Sequence[str]) -> None:
    """Insert the rows whose `unique` columns are not there yet; the others change nothing."""
    if not rows:
        return
    connection = session.connection()
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    table = inspect(model).local_table
    assert isinstance(table, Table)
    connection.execute(insert(table).on_conflict_do_nothing(index_elements=list(unique)), [dict(row) for row in rows])


@contextmanager
def _trouble_named() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        cause = getattr(error, "orig", None) or error  # the driver's words, without statement and parameters
        raise DatabaseUnavailableError(f"SQL: {type(cause).__name__}: {str(cause).strip()}") from error


def _sqlite_engine(url: URL, *, migrating: bool) -> Engine:
    engine = create_engine(
        url,
        pool_size=CONNECTIONS_MAX,
        max_overflow=0,
        pool_timeout=POOL_WAIT_S,
        connect_args={"timeout": LOCK_MS / 1000},
    )

    def set_up(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where we say, not where the driver guesses
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA busy_timeout = {LOCK_MS}")
        connection.execute(f"PRAGMA foreign_keys = {'OFF' if migrating else 'ON'}")

    def begin(connection: Connection) -> None:
        # A deferred transaction that starts to write late fails at once instead of waiting for its turn.
        reading = connection.get_execution_options().get(_READING, False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", begin)
    return engine


def _postgres_engine(url: URL, *, migrating: bool) -> Engine:
    bounds = f"-c lock_timeout={LOCK_MS} -c statement_timeout={0 if migrating else STATEMENT_MS}"
    arguments = {"connect_timeout": CONNECT_S, "tcp_user_timeout": SILENCE_MS, "options": bounds}
    return create_engine(
        url,
        pool_size=CONNECTIONS_MAX,
        max_overflow=0,
        pool_timeout=POOL_WAIT_S,
        pool_pre_ping=True,  # after a restart of the server the first caller does not pay for it
        connect_args={name: value for name, value in arguments.items() if name not in url.query},
    )
