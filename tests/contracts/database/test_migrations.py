"""The migrations make exactly the tables that the models describe, on both databases, and can be undone."""

from pathlib import Path
from stat import S_IMODE

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import delete, inspect, text, update
from sqlalchemy.exc import IntegrityError

from billing.models import UsageRecord
from core.db import DatabaseUnavailableError, connect_database, insert_new, parse_database_url, sqlite_file
from core.errors import SetupError
from migrations.models import METADATA
from migrations.run import migrate
from tests.usage_events import row

ROOT = Path(__file__).parents[3]


def test_what_is_migrated_is_what_the_models_say(database):
    with database.reading() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_a_second_migration_changes_nothing(database, database_url):
    with database.unit_of_work() as session:
        insert_new(session, UsageRecord, [row(1)], ["request_id"])
    migrate(database_url)
    with database.reading() as session:
        assert session.get(UsageRecord, row(1)["request_id"]) is not None


def test_down_to_nothing_and_up_again(database, database_url, monkeypatch):
    monkeypatch.setenv("TRAMONTANE_DATABASE_URL", database_url)
    command.downgrade(Config(ROOT / "alembic.ini"), "base")
    with database.reading() as session:
        assert inspect(session.connection()).get_table_names() == ["alembic_version"]
    migrate(database_url)
    with database.reading() as session:
        assert set(inspect(session.connection()).get_table_names()) == {"alembic_version", *METADATA.tables}


@pytest.mark.parametrize("change", [update(UsageRecord).values(cost_nano=0), delete(UsageRecord)])
def test_usage_records_cannot_be_changed_or_deleted(database, change):
    with database.unit_of_work() as session:
        insert_new(session, UsageRecord, [row(1)], ["request_id"])
    with pytest.raises(IntegrityError, match="usage_records is append-only"), database.unit_of_work() as session:
        session.execute(change)
    with database.reading() as session:
        assert session.get_one(UsageRecord, row(1)["request_id"]).cost_nano == row(1)["cost_nano"]


def test_a_database_of_a_later_release_is_refused_in_one_sentence(database, database_url):
    with database.unit_of_work() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SetupError, match="perhaps it is from a later one"):
        migrate(database_url)


def test_a_failed_migration_leaves_nothing_behind(empty_url):
    database = connect_database(empty_url)
    if file := sqlite_file(parse_database_url(empty_url)):
        file.parent.mkdir()
    with database.unit_of_work() as session:
        session.execute(text("CREATE TABLE usage_records (id INTEGER)"))  # in the way of a later step
    with pytest.raises(SetupError, match="usage_records"):
        migrate(empty_url)
    with database.reading() as session:
        assert inspect(session.connection()).get_table_names() == ["usage_records"]
    database.close()


def test_the_sqlite_file_is_private(sqlite_url):
    migrate(sqlite_url)
    file = sqlite_file(parse_database_url(sqlite_url))
    assert S_IMODE(file.stat().st_mode) == 0o600


def test_postgres_that_is_away_is_one_sentence(tmp_path):
    with pytest.raises(SetupError, match="cannot be migrated"):
        migrate(f"postgresql://postgres@/nowhere?host={tmp_path}")


def test_the_check_tells_when_sql_is_away(tmp_path):
    database = connect_database(f"postgresql://postgres@/nowhere?host={tmp_path}")
    with pytest.raises(DatabaseUnavailableError):
        database.check()
    database.close()
