"""The database as the commands need it: brought up to date, seeded, opened for one unit of work."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import SecretStr
from sqlalchemy.exc import ProgrammingError

from billing.price_lists import seed_prices
from core.catalog import Catalog
from core.clock import Clock
from core.db import Database, DatabaseUnavailableError, connect_database, parse_database_url, sqlite_file
from core.errors import PlatformError, SetupError
from core.ids import IdSource
from gateway.accounts.api_keys import create_key, list_keys
from gateway.accounts.invitations import first_login_link
from gateway.accounts.opening import open_account
from gateway.accounts.organisations import list_organisations
from gateway.accounts.seed import default_organisation_id, ensure_default
from gateway.accounts.settings import AccountSettings, peppers_of
from gateway.accounts.terms import KeyTerms
from gateway.accounts.trail import SYSTEM
from gateway.accounts.workspaces import default_workspace_of
from migrations.run import migrate

FIRST_KEY_NAME = "first key"


def prepare_database(settings: AccountSettings, catalog: Catalog, clock: Clock, ids: IdSource) -> tuple[str, ...]:
    """Migrate, then make what a fresh installation starts with. Answers the plans whose file differs from SQL."""
    with in_one_sentence():
        migrate(settings.database())
    with opened(settings) as database, database.unit_of_work() as session:
        differ = ensure_default(session, catalog, clock=clock, ids=ids).plans_that_differ
        seed_prices(session, catalog, clock)
        for organisation in list_organisations(session):
            open_account(session, organisation.id, catalog.currency, clock)
        return differ


def first_key(settings: AccountSettings, clock: Clock, ids: IdSource) -> SecretStr | None:
    """A key for an installation that has none yet; None when there are keys."""
    with opened(settings) as database, database.unit_of_work() as session:
        if list_keys(session, within=None, count=1):
            return None
        made = create_key(
            session,
            default_workspace_of(session, default_organisation_id(session)),
            KeyTerms(FIRST_KEY_NAME),
            within=None,
            actor=SYSTEM,
            peppers=peppers_of(settings),
            clock=clock,
            ids=ids,
        )
        return made.key


def first_login(settings: AccountSettings, base_url: str, clock: Clock, ids: IdSource) -> SecretStr | None:
    """A link to the console for the first administrator, another at each start; None once there is one."""
    with opened(settings) as database, database.unit_of_work() as session:
        link = first_login_link(session, default_organisation_id(session), actor=SYSTEM, clock=clock, ids=ids)
        return None if link is None else link.url(settings.public_url or base_url)


def database_name(settings: AccountSettings) -> str:
    """For a person: no URL, it may hold a password."""
    return "SQLite" if parse_database_url(settings.database()).drivername == "sqlite" else "Postgres"


@contextmanager
def opened(settings: AccountSettings) -> Iterator[Database]:
    """A database whose troubles, and refusals of what is asked of it, are one sentence."""
    file = sqlite_file(parse_database_url(settings.database()))
    if file is not None and not file.exists():
        raise SetupError(f"There is no installation in {settings.home.absolute()} yet: `tramontane up` makes it.")
    with in_one_sentence():
        database = connect_database(settings.database())
        try:
            yield database
        finally:
            database.close()


@contextmanager
def in_one_sentence() -> Iterator[None]:
    try:
        yield
    except DatabaseUnavailableError as error:
        raise SetupError(f"The database cannot be used: {error}.") from error
    except ProgrammingError as error:
        raise SetupError("The database is not at this release's schema: run `tramontane migrate`.") from error
    except PlatformError as error:
        raise SetupError(error.message) from error
