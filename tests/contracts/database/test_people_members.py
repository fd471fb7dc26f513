"""Members: roles given and taken, the last owner, keys of those who leave, and walls between organisations."""

import threading

import pytest
from sqlalchemy import select

from core.errors import CONFLICT, NOT_ALLOWED, NOT_FOUND, VALIDATION, PlatformError
from gateway.accounts.access import OPERATOR
from gateway.accounts.api_keys import create_key, find_key
from gateway.accounts.generations import generation_of
from gateway.accounts.members import (
    create_service_account,
    list_members,
    remove_member,
    remove_workspace_member,
    set_role,
    set_workspace_role,
)
from gateway.accounts.people import Member, User
from gateway.accounts.roles import Permission, Role
from gateway.accounts.terms import KeyTerms
from gateway.accounts.trail import list_audit
from gateway.accounts.users import (
    create_user,
    disable_user,
    enable_user,
    find_user,
    list_users,
    rename_user,
    set_operator,
    user_by_email,
)
from gateway.accounts.workspaces import create_workspace, default_workspace_of
from tests.accounts_world import PEPPERS
from tests.people_world import PeopleWorld


@pytest.fixture
def world(database):
    return PeopleWorld(database)


def refused(world, kind, change, *arguments, **options):
    with pytest.raises(PlatformError) as error:
        world.do(change, *arguments, **options)
    assert error.value.kind is kind, error.value.message
    return error.value


def key_of(world, owner, workspace=None):
    return world.do(
        create_key,
        workspace or world.default.workspace,
        KeyTerms("k"),
        within=None,
        peppers=PEPPERS,
        ids=world.ids,
        owner=owner,
    ).id


def actions(world, within):
    return [entry.action for entry in reversed(world.see(list_audit, within=within))]


def test_users_are_known_by_one_address_however_it_is_written(world):
    ada = world.do(create_user, " Ada@Example.COM ", "Ada", ids=world.ids)
    assert (ada.email, ada.password_hash, ada.kind) == ("ada@example.com", None, "person")
    assert world.see(find_user, "ADA@example.com", within=None).id == ada.id
    assert world.see(user_by_email, "nobody@example.com") is None
    assert refused(world, CONFLICT, create_user, "ADA@EXAMPLE.com", "Other", ids=world.ids).param == "email"
    wrong = ("ada", "a@", "@b", "a b@c.d", "stra\u00dfe@x.de", "a@b\n", "a@@b", "a@b..c", "x" * 65 + "@b.c")
    for email in (*wrong[:5], "a@b\nc", *wrong[6:]):
        assert refused(world, VALIDATION, create_user, email, "Other", ids=world.ids).param == "email"
    assert [user.email for user in world.see(list_users, within=None)] == ["ada@example.com"]
    assert world.see(list_users, within=world.home) == []


def test_access_is_what_the_roles_say(world):
    lab = world.do(create_workspace, world.home, "lab", ids=world.ids).id
    ada = world.user("ada", role="viewer")
    world.do(set_workspace_role, ada, lab, Role.DEVELOPER, within=world.home, access=OPERATOR)
    access = world.access(ada)
    assert access.may(Permission.USAGE_READ, world.home)
    assert access.may(Permission.KEYS_CREATE, world.home, lab)
    assert not access.may(Permission.KEYS_CREATE, world.home, world.default.workspace)
    boss = world.user("boss", is_operator=True)
    assert world.access(boss).may(Permission.OWNERS_MANAGE, world.home)
    world.do(disable_user, boss)
    world.do(disable_user, ada)
    assert not world.access(boss).may(Permission.ORGANISATION_READ, world.home)
    assert not world.access(ada).belongs_to(world.home)
    world.do(enable_user, ada)
    assert world.access(ada) == access
    assert not world.access("nobody").belongs_to(world.home)


def test_each_change_raises_the_generation_and_is_recorded(world):
    ada = world.user("ada", role="developer")
    before = world.see(generation_of, world.home).number
    change = world.do(set_role, ada, world.home, Role.ADMIN, access=OPERATOR)
    assert change.publish == (world.see(generation_of, world.home),)
    assert change.publish[0].number == before + 1
    again = world.do(set_role, ada, world.home, Role.ADMIN, access=OPERATOR)
    assert again == change  # published once more, nothing done
    gone = world.do(remove_member, ada, world.home, access=OPERATOR)
    assert gone.publish[0].number == before + 2
    entries = [entry for entry in world.see(list_audit, within=world.home) if entry.action.startswith("member")]
    assert [(entry.action, entry.before, entry.after) for entry in reversed(entries)] == [
        ("member.add", None, {"role": "developer"}),
        ("member.set_role", {"role": "developer"}, {"role": "admin"}),
        ("member.remove", {"role": "admin"}, {"keys_revoked": [], "keys_kept": []}),
    ]
    assert all(entry.target_id == ada and entry.actor_id == "ada" for entry in entries)


def test_the_last_owner_stays(world):
    ada, bob = world.user("ada", role="owner"), world.user("bob", role="admin")
    for change, options in ((set_role, {"role": Role.ADMIN}), (remove_member, {})):
        arguments = (ada, world.home, *options.values())
        assert "owner" in refused(world, CONFLICT, change, *arguments, access=OPERATOR).message
        refused(world, CONFLICT, change, *arguments, access=world.access(ada))
    world.do(set_role, bob, world.home, Role.OWNER, access=world.access(ada))
    world.do(disable_user, bob)  # an owner who cannot log in is none
    refused(world, CONFLICT, remove_member, ada, world.home, access=world.access(ada))
    world.do(enable_user, bob)
    world.do(remove_member, ada, world.home, access=world.access(ada))
    refused(world, CONFLICT, remove_member, bob, world.home, access=world.access(bob))
    assert not world.access(ada).belongs_to(world.home)


def test_of_two_owners_who_leave_at_once_one_stays(world):
    both = [world.user("ada", role="owner"), world.user("bob", role="owner")]
    start, outcomes = threading.Barrier(2), []

    def leave(user):
        access = world.access(user)
        start.wait(10)
        try:
            world.do(remove_member, user, world.home, access=access)
            outcomes.append("left")
        except PlatformError as error:
            outcomes.append(error.kind)

    threads = [threading.Thread(target=leave, args=(user,)) for user in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes, key=str) == sorted([CONFLICT, "left"], key=str)
    assert len(world.see(lambda session: session.scalars(select(Member)).all())) == 1


def test_only_owners_make_and_unmake_owners(world):
    ada, bob, eve = (
        world.user(name, role=role) for name, role in (("ada", "owner"), ("bob", "admin"), ("eve", "viewer"))
    )
    bobs = world.access(bob)
    refused(world, NOT_ALLOWED, set_role, eve, world.home, Role.OWNER, access=bobs)
    refused(world, NOT_ALLOWED, set_role, bob, world.home, Role.OWNER, access=bobs)
    refused(world, NOT_ALLOWED, set_role, ada, world.home, Role.VIEWER, access=bobs)
    refused(world, NOT_ALLOWED, remove_member, ada, world.home, access=bobs)
    world.do(set_role, eve, world.home, Role.DEVELOPER, access=bobs)
    refused(world, NOT_ALLOWED, set_role, eve, world.home, Role.ADMIN, access=world.access(eve))
    refused(world, NOT_ALLOWED, remove_member, bob, world.home, access=world.access(eve))
    world.do(remove_member, eve, world.home, access=world.access(eve))  # anybody may leave


def test_keys_of_who_leaves_end_unless_they_shall_stay(world):
    other = world.organisation("other")
    ada = world.user("ada", role="developer")
    world.do(set_role, ada, other, Role.DEVELOPER, access=OPERATOR)
    elsewhere = key_of(world, ada, _default_of(world, other))
    mine, foreign = key_of(world, ada), key_of(world, None)
    gone = world.do(remove_member, ada, world.home, access=OPERATOR)
    assert (gone.keys_revoked, gone.keys_kept) == ((mine,), ())
    assert gone.publish == (world.see(generation_of, world.home),)
    state = {name: world.see(find_key, name, within=None).revoked_ms for name in (mine, foreign, elsewhere)}
    assert [state[mine] is None, state[foreign] is None, state[elsewhere] is None] == [False, True, True]
    kept = world.do(remove_member, ada, other, access=OPERATOR, revoke_keys=False)
    assert (kept.keys_revoked, kept.keys_kept) == ((), (elsewhere,))
    assert world.see(find_key, elsewhere, within=None).revoked_ms is None
    disabled = world.do(disable_user, ada)
    assert disabled.publish == (world.see(generation_of, other),)
    assert world.see(find_key, elsewhere, within=None).revoked_ms is not None


def test_a_role_in_a_workspace_comes_and_goes(world):
    lab = world.do(create_workspace, world.home, "lab", ids=world.ids).id
    ada, bob = world.user("ada"), world.user("bob", role="viewer")
    by = {"within": world.home, "access": OPERATOR}
    for user in (ada, bob):
        world.do(set_workspace_role, user, "lab", Role.ADMIN, **by)
    hers, his = key_of(world, ada, lab), key_of(world, bob, lab)
    adas = {"within": world.home, "access": world.access(ada)}
    world.do(set_workspace_role, bob, lab, Role.VIEWER, **adas)  # an admin of the workspace, there only
    refused(world, NOT_ALLOWED, set_workspace_role, bob, world.default.workspace, Role.VIEWER, **adas)
    refused(world, NOT_ALLOWED, set_role, bob, world.home, Role.ADMIN, access=world.access(ada))
    seen = {row.user: row for row in world.see(list_members, world.home, access=world.access(ada))}
    assert {user: (row.role, row.workspace_roles) for user, row in seen.items()} == {
        ada: (None, {lab: Role.ADMIN}),
        bob: (Role.VIEWER, {lab: Role.VIEWER}),
    }
    eve = world.user("eve", role="viewer")  # in no workspace of hers
    assert eve not in {row.user for row in world.see(list_members, world.home, access=world.access(ada))}
    assert world.do(remove_workspace_member, ada, lab, **by).keys_revoked == (hers,)
    assert world.do(remove_workspace_member, bob, lab, **by).keys_kept == (his,)  # still in the organisation
    refused(world, NOT_FOUND, remove_workspace_member, bob, lab, **by)
    assert not world.access(ada).belongs_to(world.home)
    assert actions(world, world.home).count("workspace_member.remove") == 2


def test_leaving_the_organisation_leaves_its_workspaces_and_no_others(world):
    other = world.organisation("other")
    ada = world.user("ada", role="viewer")
    here, there = world.default.workspace, _default_of(world, other)
    world.do(set_workspace_role, ada, here, Role.ADMIN, within=world.home, access=OPERATOR)
    world.do(set_workspace_role, ada, there, Role.ADMIN, within=other, access=OPERATOR)
    world.do(remove_member, ada, world.home, access=OPERATOR)
    assert set(world.access(ada).workspace_roles) == {there}


def test_service_accounts_own_keys_and_nothing_else(world):
    admin = world.access(world.user("ada", role="admin"))
    made = world.do(create_service_account, world.home, "ci", Role.DEVELOPER, access=admin, ids=world.ids)
    (row,) = [row for row in world.see(list_members, world.home, access=admin) if row.user == made.id]
    assert (row.kind, row.email, row.role) == ("service", None, Role.DEVELOPER)
    key = key_of(world, made.id)
    refused(world, CONFLICT, set_role, made.id, world.home, Role.OWNER, access=OPERATOR)
    refused(world, CONFLICT, set_operator, made.id, True)
    refused(world, CONFLICT, create_service_account, world.home, "x", Role.OWNER, access=admin, ids=world.ids)
    assert world.do(remove_member, made.id, world.home, access=admin).keys_revoked == (key,)
    viewer = world.access(world.user("eve", role="viewer"))
    refused(world, NOT_ALLOWED, create_service_account, world.home, "x", Role.VIEWER, access=viewer, ids=world.ids)


def test_nobody_reaches_into_another_organisation(world):
    other = world.organisation("other")
    theirs = _default_of(world, other)
    ada, bob = world.user("ada", role="owner"), world.user("bob", other, "owner")
    access = world.access(ada)
    by = {"access": access}
    walls = [
        (set_role, (bob, other, Role.VIEWER), by),
        (set_role, (bob, world.home, Role.VIEWER), by),  # not by id, either
        (remove_member, (bob, other), by),
        (remove_member, (bob, world.home), by),
        (set_workspace_role, (bob, theirs, Role.VIEWER), {"within": other, **by}),
        (set_workspace_role, (ada, theirs, Role.ADMIN), {"within": world.home, **by}),
        (set_workspace_role, (bob, world.default.workspace, Role.VIEWER), {"within": world.home, **by}),
        (remove_workspace_member, (bob, theirs), {"within": other, **by}),
        (create_service_account, (other, "x", Role.VIEWER), {"ids": world.ids, **by}),
    ]
    for change, arguments, options in walls:
        refused(world, NOT_FOUND, change, *arguments, **options)
    for arguments in ((bob, world.home), ("bob@example.com", world.home), (ada, other)):
        with pytest.raises(PlatformError) as error:
            world.see(find_user, arguments[0], within=arguments[1])
        assert error.value.kind is NOT_FOUND
    with pytest.raises(PlatformError) as error:
        world.see(list_members, other, access=access)
    assert error.value.kind is NOT_FOUND
    assert [row.user for row in world.see(list_members, world.home, access=access)] == [ada]
    assert [user.id for user in world.see(list_users, within=world.home)] == [ada]


def test_what_operators_do_to_users_is_recorded(world):
    ada = world.user("ada")
    world.do(set_operator, ada, True)
    world.do(rename_user, ada, "Ada L.")
    world.do(disable_user, ada)
    world.do(enable_user, ada)
    entries = [entry for entry in world.see(list_audit, within=None) if entry.target_id == ada]
    assert [entry.action for entry in reversed(entries)] == [
        "user.create",
        "user.set_operator",
        "user.rename",
        "user.disable",
        "user.enable",
    ]
    user = world.see(lambda session: session.get(User, ada))
    assert (user.name, user.is_operator, user.disabled_ms) == ("Ada L.", True, None)


def _default_of(world, organisation):
    return world.see(default_workspace_of, organisation)
