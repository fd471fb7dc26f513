"""Alembic's entry: runs the versions on the connection that migrations/run.py holds, in its transaction."""

from alembic import context
from sqlalchemy import Connection

from core.db import connect_database
from core.settings import PlatformSettings, read_settings
from migrations.models import METADATA


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=METADATA,
        render_as_batch=True,  # SQLite alters a table by building it anew
        transactional_ddl=True,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


held = context.config.attributes.get("connection")
if held is not None:
    run(held)
else:  # the alembic command of a maintainer
    database = connect_database(read_settings(PlatformSettings).database(), migrating=True)
    with database.unit_of_work() as session:
        run(session.connection())
    database.close()
