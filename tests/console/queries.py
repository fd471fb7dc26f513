"""How many statements a page sends to SQL."""

from contextlib import contextmanager

from sqlalchemy import event


@contextmanager
def counted(database):
    """A list that grows with each statement, whoever sends it."""
    statements = []

    def note(_connection, _cursor, statement, *_rest):
        if not statement.startswith("BEGIN"):
            statements.append(statement)

    event.listen(database._engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(database._engine, "before_cursor_execute", note)
