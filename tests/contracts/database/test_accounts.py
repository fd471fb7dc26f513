"""Seeding, organisations, workspaces and the audit log, and what gateways publish of them."""

import asyncio
import threading

import pytest
import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from core.clock import ManualClock
from core.db import connect_database
from core.errors import CONFLICT, NOT_FOUND, VALIDATION, PlatformError
from core.ids import CountingIds, SystemIds
from core.queue.base import QueueSettings
from core.queue.memory.broker import MemoryBroker
from core.queue.memory.views import MemoryQueueKeeper
from core.queue.rules import RuleKind
from gateway.accounts.generations import (
    TOLD_AT_ONCE,
    Generation,
    generation_of,
    publish_generations,
    raise_generation,
)
from gateway.accounts.limits import LimitTerms, Subject, SubjectKind, set_limit
from gateway.accounts.models import AuditEntry, Limit, Organisation, Plan, Workspace
from gateway.accounts.organisations import (
    change_plan,
    create_organisation,
    find_organisation,
    list_organisations,
    rename_organisation,
    resume_organisation,
    set_organisation_lenient,
    suspend_organisation,
)
from gateway.accounts.seed import ensure_default
from gateway.accounts.trail import list_audit
from gateway.accounts.workspaces import (
    archive_workspace,
    create_workspace,
    default_workspace_of,
    find_workspace,
    list_workspaces,
    rename_workspace,
    set_workspace_lenient,
)
from gateway.publisher import Publisher
from tests.accounts_world import ACTOR, AccountsWorld, catalog

CLOCK = ManualClock()


@pytest.fixture
def world(database):
    return AccountsWorld(database)


def test_a_fresh_installation_has_a_default_organisation_once(world):
    with world.database.unit_of_work() as session:
        again = ensure_default(session, catalog(), clock=CLOCK, ids=SystemIds(CLOCK))
    assert again == world.default
    assert again.plans_that_differ == ()
    with world.database.reading() as session:
        assert len(session.scalars(select(Organisation)).all()) == len(session.scalars(select(Workspace)).all()) == 1
        assert session.get_one(Plan, "development").credit_nano == 1_500_000_000
        limits = {limit.kind: limit.value for limit in session.scalars(select(Limit))}
    assert limits == {"requests_per_minute": 60, "tokens_per_minute": 1000, "concurrency": 5}


def test_a_default_organisation_that_was_renamed_is_not_made_again(world):
    world.do(rename_organisation, world.default.organisation, "ours")
    with world.database.unit_of_work() as session:
        assert ensure_default(session, catalog(), clock=CLOCK, ids=SystemIds(CLOCK)) == world.default


@pytest.mark.parametrize("change", [{"concurrency": 6}, {"weight": 9}, {"spend_per_day": "1"}])
def test_a_file_that_differs_later_changes_nothing_but_is_told(world, change):
    with world.database.unit_of_work() as session:
        told = ensure_default(session, catalog(**change), clock=CLOCK, ids=CountingIds())
    assert told.plans_that_differ == ("development",)
    with world.database.reading() as session:
        assert session.scalars(select(Limit.value).where(Limit.kind == "concurrency")).all() == [5]


def test_two_first_starts_at_once_make_one_organisation(database, database_url):
    other, found = connect_database(database_url), []
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


def test_changes_at_once_raise_the_generation_for_each(world):
    def change():
        with world.database.unit_of_work() as session:
            raise_generation(session, world.default.organisation)

    threads = [threading.Thread(target=change) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert world.see(generation_of, world.default.organisation).number == 7


async def test_gateways_publish_every_generation(world):
    other = world.organisation("other")
    world.do(suspend_organisation, other)
    keeper = MemoryQueueKeeper(MemoryBroker(QueueSettings("c0", 6_000, {}), CLOCK))
    await Publisher(world.database, keeper, structlog.get_logger()).publish()
    assert await keeper.generations([world.default.organisation, other]) == {world.default.organisation: 1, other: 2}


async def test_many_generations_go_out_beside_each_other_and_so_many_at_a_time():
    open_now, at_once, told = 0, [], {}

    class Keeper:
        async def set_generation(self, organisation, number):
            nonlocal open_now
            open_now += 1
            at_once.append(open_now)
            await asyncio.sleep(0)
            told[organisation] = number
            open_now -= 1

    many = [Generation(f"o{i}", i) for i in range(TOLD_AT_ONCE + 7)]
    await publish_generations(Keeper(), iter(many))
    assert told == {each.organisation: each.number for each in many}
    assert max(at_once) == TOLD_AT_ONCE


def test_an_organisation_begins_with_its_default_workspace(world):
    change = world.do(create_organisation, "acme", ids=world.ids, lenient=True)
    assert change.publish == (Generation(change.id, 1),)
    found = world.see(find_organisation, "acme")
    assert (found.id, found.plan, found.status, found.lenient) == (change.id, "development", "active", True)
    (workspace,) = world.see(list_workspaces, within=change.id)
    assert (workspace.name, workspace.is_default, workspace.lenient) == ("default", True, None)
    assert world.see(default_workspace_of, change.id) == workspace.id
    assert [organisation.id for organisation in world.see(list_organisations)] == [
        world.default.organisation,
        change.id,
    ]


def test_each_change_of_an_organisation_raises_its_generation_and_is_in_the_log(world):
    organisation = world.organisation("acme")
    with world.database.unit_of_work() as session:
        session.add(Plan(name="large", credit_nano=0, weight=9))
    changes = [
        (rename_organisation, "acme ltd", {"name": "acme"}, {"name": "acme ltd"}),
        (set_organisation_lenient, True, {"lenient": False}, {"lenient": True}),
        (change_plan, "large", {"plan": "development"}, {"plan": "large"}),
        (suspend_organisation, None, {"status": "active"}, {"status": "suspended"}),
        (resume_organisation, None, {"status": "suspended"}, {"status": "active"}),
    ]
    for number, (change, value, before, after) in enumerate(changes, 2):
        arguments = (organisation,) if value is None else (organisation, value)
        told = [world.do(change, *arguments), world.do(change, *arguments)]  # the second changes nothing
        assert [each.publish for each in told] == [(Generation(organisation, number),)] * 2
        youngest = world.see(list_audit, within=organisation, count=1)[0]
        assert (youngest.before, youngest.after) == (before, after)
    entries = world.see(list_audit, within=organisation)
    assert [entry.action for entry in reversed(entries)] == [
        "organisation.create",
        "organisation.rename",
        "organisation.set_lenient",
        "organisation.change_plan",
        "organisation.suspend",
        "organisation.resume",
    ]


def test_each_change_of_a_workspace_raises_the_generation_and_archiving_is_final(world):
    organisation = world.default.organisation
    made = world.do(create_workspace, organisation, "lab", ids=world.ids)
    steps = [
        world.do(rename_workspace, made.id, "laboratory", within=organisation),
        world.do(set_workspace_lenient, made.id, True, within=organisation),
        world.do(set_workspace_lenient, made.id, None, within=organisation),
        world.do(archive_workspace, made.id, within=organisation),
        world.do(archive_workspace, made.id, within=organisation),
    ]
    assert [step.publish[0].number for step in steps] == [2, 3, 4, 5, 5]
    assert world.see(find_workspace, made.id, within=None).archived_ms == world.clock.now_ms()
    with pytest.raises(PlatformError) as caught:
        world.do(rename_workspace, made.id, "lab", within=organisation)
    assert caught.value.kind is CONFLICT
    with pytest.raises(PlatformError, match="taken"):
        world.do(create_workspace, organisation, "laboratory", ids=world.ids)


def test_the_default_workspace_cannot_be_archived_and_there_is_only_one(world):
    with pytest.raises(PlatformError) as caught:
        world.do(archive_workspace, world.default.workspace, within=None)
    assert caught.value.kind is CONFLICT
    with pytest.raises(IntegrityError), world.database.unit_of_work() as session:
        session.add(
            Workspace(id="w2", organisation_id=world.default.organisation, name="second", is_default=True, created_ms=0)
        )


@pytest.mark.parametrize(
    ("change", "arguments", "kind"),
    [
        (create_organisation, ("default",), CONFLICT),
        (create_organisation, (" ",), VALIDATION),
        (rename_organisation, ("nobody", "x"), NOT_FOUND),
        (suspend_organisation, ("nobody",), NOT_FOUND),
        (change_plan, ("{default}", "golden"), NOT_FOUND),
        (rename_organisation, ("{default}", "two\nlines"), VALIDATION),
        (rename_organisation, ("{default}", "x" * 129), VALIDATION),
        (create_workspace, ("nobody", "x"), NOT_FOUND),
        (create_workspace, ("{default}", "default"), CONFLICT),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(sqlite_database, change, arguments, kind):
    world = AccountsWorld(sqlite_database)
    before = world.see(list_audit, within=None)
    arguments = [world.default.organisation if argument == "{default}" else argument for argument in arguments]
    options = {"ids": world.ids} if change in {create_organisation, create_workspace} else {}
    with pytest.raises(PlatformError) as caught:
        world.do(change, *arguments, **options)
    assert caught.value.kind is kind
    assert len(world.see(list_organisations)) == len(world.see(list_workspaces, within=None)) == 1
    assert len(world.see(list_audit, within=None)) == len(before)
    assert world.see(generation_of, world.default.organisation).number == 1


def test_a_workspace_name_of_two_organisations_asks_for_the_id(world):
    world.organisation("second")
    with pytest.raises(PlatformError, match="give its id"):
        world.see(find_workspace, "default", within=None)
    found = world.see(find_workspace, "default", within=world.default.organisation)
    assert found.id == world.default.workspace


def test_the_log_says_who_from_where_and_is_read_in_pages(world):
    for number in range(5):
        world.clock.advance(1_000)
        world.do(rename_organisation, world.default.organisation, f"name {number}")
    pages, last = [], None
    while page := world.see(list_audit, within=world.default.organisation, before_id=last, count=2):
        pages.append([entry.after["name"] for entry in page])
        last = page[-1].id
    assert pages == [["name 4", "name 3"], ["name 2", "name 1"], ["name 0"]]
    entry = world.see(list_audit, within=None, count=1)[0]
    assert (entry.actor_kind, entry.actor_id, entry.actor_name) == (ACTOR.kind, ACTOR.id, ACTOR.name)
    assert (entry.address, entry.request_id, entry.at_ms) == (ACTOR.address, ACTOR.request_id, world.clock.now_ms())
    assert (entry.target_kind, entry.target_id) == ("organisation", world.default.organisation)


@pytest.mark.parametrize("change", [update(AuditEntry).values(actor_id="nobody"), delete(AuditEntry)])
def test_the_log_cannot_be_changed(world, change):
    world.do(rename_organisation, world.default.organisation, "ours")
    with pytest.raises(IntegrityError, match="audit_log is append-only"), world.database.unit_of_work() as session:
        session.execute(change)
    assert world.see(list_audit, within=None)[0].actor_id == ACTOR.id


def test_a_plan_changes_every_organisation_on_it(world):
    other = world.organisation("other")
    subject, terms = Subject(SubjectKind.PLAN, "development"), LimitTerms(RuleKind.CONCURRENCY, 7)
    change = world.do(set_limit, subject, terms, within=None, known_tiers=(), ids=world.ids)
    assert set(change.publish) == {Generation(world.default.organisation, 2), Generation(other, 2)}
