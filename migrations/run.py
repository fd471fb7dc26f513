"""Bring a database to the schema of this release: `tramontane migrate`, and each `tramontane up`."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from core.db import DatabaseUnavailableError, connect_database, parse_database_url, sqlite_file
from core.errors import SetupError

_LOCK = 7_204_581_633  # any number that no other program uses


def migrate(database_url: str) -> None:
    """Upgrade in one transaction: all or nothing, and one process at a time. Raises SetupError."""
    file = sqlite_file(parse_database_url(database_url))
    if file is not None:
        _make_private(file)
    database = connect_database(database_url, migrating=True)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    try:
        with database.unit_of_work() as session:
            connection = session.connection()
            _lock(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            _check_references(connection)
    except DatabaseUnavailableError as error:
        raise SetupError(f"The database cannot be migrated: {error}.") from error
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        raise SetupError(f"The database cannot be migrated, nothing was changed: {reason}.") from error
    except CommandError as error:
        raise SetupError(f"The database does not fit this release, perhaps it is from a later one: {error}.") from error
    finally:
        database.close()


def _make_private(file: Path) -> None:
    """SQLite gives its journal files the mode of the database file."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
    except OSError as error:
        raise SetupError(f"The database file {file} cannot be made: {error.strerror}.") from error


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":  # SQLite has begun to write already: nobody else does
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})


def _check_references(connection: Connection) -> None:
    """Foreign keys are not enforced while SQLite's tables are rebuilt, so look at them once at the end."""
    if connection.dialect.name == "sqlite":
        broken = connection.execute(text("PRAGMA foreign_key_check")).first()
        if broken is not None:
            raise SetupError(f"The migration would break a reference in the table {broken[0]}; nothing was changed.")
