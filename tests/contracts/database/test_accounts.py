"""Organisations, workspaces and keys in SQL, and what gateways publish of them."""

import threading

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from billing.models import UsageRecord
from core.catalog import Catalog
from core.clock import ManualClock
from core.db import connect_database, insert_new
from core.errors import NOT_FOUND, VALIDATION, PlatformError
from core.ids import CountingIds, SystemIds
from core.queue.base import QueueSettings
from core.queue.memory.broker import MemoryBroker
from core.queue.memory.views import MemoryQueueKeeper
from gateway.accounts.keys import Pepper
from gateway.accounts.models import ApiKey, Organisation, Plan, Workspace
from gateway.accounts.seed import ensure_default, seed_platform
from gateway.accounts.service import create_key, list_keys, raise_generation, revoke_key
from tests.usage_events import row

CLOCK = ManualClock()
PEPPER = Pepper(1, SecretStr("pepper"))


def catalog(**changes):
    plan = {"requests_per_minute": 60, "tokens_per_minute": 1000, "concurrency": 5, "credit": "1.5", "weight": 2}
    return Catalog.model_validate({"plans": {"development": {**plan, **changes}}, "tiers": []})


@pytest.fixture
def seeded(database):
    with database.unit_of_work() as session:
        return ensure_default(session, catalog(), clock=CLOCK, ids=CountingIds())


def new_key(session, ids, name="first", **options):
    return create_key(session, "default", name, pepper=PEPPER, clock=CLOCK, ids=ids, **options)


def test_a_fresh_installation_has_a_default_organisation_once(database, seeded):
    with database.unit_of_work() as session:
        again = ensure_default(session, catalog(), clock=CLOCK, ids=SystemIds(CLOCK))
    assert again == seeded
    assert again.plans_that_differ == ()
    with database.reading() as session:
        assert len(session.scalars(select(Organisation)).all()) == len(session.scalars(select(Workspace)).all()) == 1
        assert session.get_one(Plan, "development").credit_nano == 1_500_000_000


def test_a_file_that_differs_later_changes_nothing_but_is_told(database, seeded):
    with database.unit_of_work() as session:
        told = ensure_default(session, catalog(concurrency=6), clock=CLOCK, ids=CountingIds())
    assert told.plans_that_differ == ("development",)
    with database.reading() as session:
        assert session.get_one(Plan, "development").concurrency == 5


def test_two_first_starts_at_once_make_one_organisation(database, empty_url):
    other, found = connect_database(empty_url), []
    barrier = threading.Barrier(2)

    def start(own):
        barrier.wait(10)
        with own.unit_of_work() as session:
            found.append(ensure_default(session, catalog(), clock=CLOCK, ids=SystemIds(CLOCK)))

    threads = [threading.Thread(target=start, args=(own,)) for own in (database, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    other.close()
    assert len(found) == 2
    assert found[0] == found[1]


def test_a_key_is_shown_once_and_kept_as_a_digest(database, seeded):
    with database.unit_of_work() as session:
        new = new_key(session, CountingIds())
    key = new.key.get_secret_value()
    assert key not in repr(new)
    with database.reading() as session:
        kept = session.get_one(ApiKey, new.id)
        assert kept.digest == PEPPER.digest(key)
        assert not any(key in str(value) for value in vars(kept).values())
        (listed,) = list_keys(session, "default")
    assert (listed.id, listed.name, listed.workspace, listed.organisation) == (new.id, "first", "default", "default")
    assert (listed.scopes, listed.revoked_ms, listed.last_used_ms) == (("inference",), None, None)
    assert key.endswith(listed.hint)


def test_lists_tell_when_a_key_was_last_used(database, seeded):
    with database.unit_of_work() as session:
        new = new_key(session, CountingIds())
        used = [{**row(number), "key_id": new.id} for number in (3, 9, 5)]
        insert_new(session, UsageRecord, [*used, row(20)], ["request_id"])
    with database.reading() as session:
        assert [key.last_used_ms for key in list_keys(session)] == [row(9)["admitted_ms"]]


def test_revoking_raises_the_generation_once(database, seeded):
    with database.unit_of_work() as session:
        new = new_key(session, CountingIds())
    answers = []
    for _ in range(2):
        with database.unit_of_work() as session:
            answers.append(revoke_key(session, new.id, clock=CLOCK))
    assert answers[0] == answers[1]
    assert (answers[0].organisation, answers[0].generation) == (seeded.organisation, 2)
    with database.reading() as session:
        assert session.get_one(ApiKey, new.id).revoked_ms == CLOCK.now_ms()


def test_changes_at_once_raise_the_generation_for_each(database, seeded):
    def change():
        with database.unit_of_work() as session:
            raise_generation(session, seeded.organisation)

    threads = [threading.Thread(target=change) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with database.reading() as session:
        assert session.get_one(Organisation, seeded.organisation).generation == 7


@pytest.mark.parametrize(
    ("workspace", "name", "expires_ms", "kind"),
    [
        ("nowhere", "ci", None, NOT_FOUND),
        ("default", " ", None, VALIDATION),
        ("default", "x" * 129, None, VALIDATION),
        ("default", "two\nlines", None, VALIDATION),
        ("default", "ci", CLOCK.now_ms(), VALIDATION),
    ],
)
def test_what_cannot_be_made_is_said_and_leaves_nothing(sqlite_database, workspace, name, expires_ms, kind):
    with sqlite_database.unit_of_work() as session:
        ensure_default(session, catalog(), clock=CLOCK, ids=CountingIds())
    with pytest.raises(PlatformError) as caught, sqlite_database.unit_of_work() as session:
        create_key(session, workspace, name, pepper=PEPPER, clock=CLOCK, ids=CountingIds(), expires_ms=expires_ms)
    assert caught.value.kind is kind
    with sqlite_database.reading() as session:
        assert list_keys(session) == []


def test_an_unknown_key_cannot_be_revoked(sqlite_database):
    with pytest.raises(PlatformError) as caught, sqlite_database.unit_of_work() as session:
        revoke_key(session, "0000000000", clock=CLOCK)
    assert caught.value.kind is NOT_FOUND


def test_a_workspace_name_of_two_organisations_asks_for_the_id(database, seeded):
    with database.unit_of_work() as session:
        session.add(Organisation(id="o2", name="second", plan="development", generation=1, created_ms=0))
        session.flush()
        session.add(Workspace(id="w2", organisation_id="o2", name="default", created_ms=0))
    with pytest.raises(PlatformError, match="give its id"), database.unit_of_work() as session:
        new_key(session, CountingIds())
    with database.unit_of_work() as session:
        made = create_key(session, "w2", "ci", pepper=PEPPER, clock=CLOCK, ids=CountingIds())
    with database.reading() as session:
        assert [key.id for key in list_keys(session, "w2")] == [made.id]
        assert list_keys(session, seeded.workspace) == []


async def test_gateways_publish_credit_and_generation(database, seeded):
    broker = MemoryBroker(QueueSettings("c0", 6_000, {}), CLOCK)
    keeper = MemoryQueueKeeper(broker)
    await seed_platform(database, keeper)
    await seed_platform(database, keeper)
    assert await keeper.generations([seeded.organisation]) == {seeded.organisation: 1}
    assert broker._credit_nano[seeded.organisation] == 1_500_000_000
