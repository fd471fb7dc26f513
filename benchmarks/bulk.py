"""Many rows into a table, as fast as each database takes them: COPY, or prepared inserts."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Table, inspect
from sqlalchemy.orm import Session

from core.db import Base


def load(session: Session, model: type[Base], columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows as tuples of plain values, in the order of `columns`; none of them is JSON."""
    table = inspect(model).local_table
    assert isinstance(table, Table)
    names = ", ".join(columns)
    connection = session.connection()
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "postgresql":
        with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
    else:
        marks = ", ".join("?" * len(columns))
        driver.executemany(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", rows)
