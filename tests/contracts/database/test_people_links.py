"""Links that work once: invitations, first log-ins, forgotten passwords; and what they never do."""

import threading

import pytest
from sqlalchemy import select

from core.errors import CONFLICT, NOT_ALLOWED, NOT_FOUND, TOO_MANY_ATTEMPTS, VALIDATION, PlatformError
from gateway.accounts.access import OPERATOR
from gateway.accounts.generations import generation_of
from gateway.accounts.invitations import (
    accept_invitation,
    first_login_link,
    forgotten_password,
    invite,
    list_invitations,
    password_link,
    withdraw_invitation,
)
from gateway.accounts.links import VALID_MS, Purpose, offer_of
from gateway.accounts.members import create_service_account, set_role, set_workspace_role
from gateway.accounts.models import AuditEntry
from gateway.accounts.people import OneTimeLink, User
from gateway.accounts.roles import Permission, Role
from gateway.accounts.sessions import Origin
from gateway.accounts.trail import list_audit
from gateway.accounts.users import disable_user, list_users
from gateway.accounts.workspaces import create_workspace
from tests.people_world import HERE, PASSWORD, PeopleWorld

NEW = "another long password"


@pytest.fixture
def world(database):
    return PeopleWorld(database)


def refused(kind, call, *arguments, **options):
    with pytest.raises(PlatformError) as error:
        call(*arguments, **options)
    assert error.value.kind is kind, error.value.message
    return error.value


def invited(world, name="ada", role=Role.DEVELOPER, access=OPERATOR, organisation=None, **options):
    email = f"{name}@example.com"
    return world.do(invite, email, organisation or world.home, role, access=access, ids=world.ids, **options)


def redeem(world, link, password=PASSWORD, **options):
    return world.door.redeem(link.token.get_secret_value(), password, HERE, **options)


def forgot(world, name, origin=HERE):
    with world.database.unit_of_work() as session:
        return forgotten_password(session, f"{name}@example.com", origin, clock=world.clock, ids=world.ids)


def new_password(world, user):
    return world.do(password_link, user, access=OPERATOR, ids=world.ids)


def offered(world, link):
    return world.see(offer_of, link.token.get_secret_value(), world.clock)


def test_an_invitation_makes_the_account_and_gives_the_role(world):
    admin = world.access(world.user("boss", role="admin"))
    link = invited(world, access=admin)
    offer = offered(world, link)
    assert (offer.purpose, offer.email, offer.role, offer.organisation_name) == (
        Purpose.INVITE,
        "ada@example.com",
        Role.DEVELOPER,
        "default",
    )
    assert not offer.has_account
    logged_in, change = redeem(world, link, name="Ada")
    assert change.publish == (world.see(generation_of, world.home),)
    signed_in = world.signed_in(logged_in.token)
    assert (signed_in.name, signed_in.email) == ("Ada", "ada@example.com")
    assert signed_in.access.roles == {world.home: Role.DEVELOPER}
    assert world.log_in("ada").user == logged_in.user
    assert refused(NOT_FOUND, redeem, world, link).message == refused(NOT_FOUND, offered, world, link).message
    said = [entry.action for entry in reversed(world.see(list_audit, within=world.home))]
    assert said[-2:] == ["invite.create", "member.add"]


def test_of_many_who_use_a_link_at_once_one_succeeds(world):
    link = invited(world)
    start, outcomes = threading.Barrier(6), []

    def use():
        start.wait(10)
        try:
            outcomes.append(redeem(world, link)[0].user)
        except PlatformError as error:
            outcomes.append(error.kind)

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    users = [user.id for user in world.see(list_users, within=None)]
    assert [outcome for outcome in outcomes if isinstance(outcome, str)] == users
    assert len(users) == 1
    assert set(outcomes) - set(users) == {NOT_FOUND}
    assert len(outcomes) == 6


@pytest.mark.parametrize("purpose", list(Purpose))
def test_links_end_in_time(world, purpose):
    ada = world.user("ada", password=None if purpose is Purpose.FIRST_LOGIN else PASSWORD)
    link = invited(world, "new") if purpose is Purpose.INVITE else new_password(world, ada)
    assert link.purpose is purpose
    assert link.expires_ms == world.clock.now_ms() + VALID_MS[purpose]
    world.clock.advance(VALID_MS[purpose] - 1)
    assert offered(world, link).purpose is purpose
    world.clock.advance(1)
    refused(NOT_FOUND, redeem, world, link)
    assert VALID_MS == {Purpose.INVITE: 259_200_000, Purpose.RESET: 3_600_000, Purpose.FIRST_LOGIN: 86_400_000}


def test_no_token_is_kept_or_shown(world):
    link = invited(world)
    token = link.token.get_secret_value()
    assert len(token) == 64
    redeem(world, link)
    with world.database.reading() as session:
        for model in (OneTimeLink, AuditEntry, User):
            for row in session.scalars(select(model)):
                assert token not in str(vars(row))
    assert token not in repr(link)
    assert token not in repr(link.url("http://localhost"))


def test_a_link_never_opens_an_account_that_exists(world):
    """Whoever invites may see the link: it must not make him somebody else."""
    world.user("ada", password=PASSWORD)
    other = world.organisation("other")
    link = invited(world, organisation=other)
    assert offered(world, link).has_account
    refused(CONFLICT, redeem, world, link, NEW)
    world.log_in("ada")
    eve = world.user("eve", password=PASSWORD)
    token = link.token.get_secret_value()
    eves = world.signed_in(world.log_in("eve").token)
    adas = world.signed_in(world.log_in("ada").token)

    def accept(signed_in):
        with world.database.unit_of_work() as session:
            return accept_invitation(session, token, signed_in, HERE, world.clock)

    refused(NOT_ALLOWED, accept, eves)
    assert accept(adas).publish == (world.see(generation_of, other),)
    refused(NOT_FOUND, accept, adas)
    assert world.access(adas.user).roles == {other: Role.DEVELOPER}
    assert not world.access(eve).belongs_to(other)


def test_an_account_made_in_the_meantime_is_not_taken_over(world):
    first, second = invited(world), invited(world, organisation=world.organisation("other"))
    redeem(world, first)
    refused(CONFLICT, redeem, world, second, NEW)
    world.log_in("ada")
    assert offered(world, second).has_account  # it still waits for her


def test_who_may_invite_whom(world):
    lab = world.do(create_workspace, world.home, "lab", ids=world.ids).id
    other = world.organisation("other")
    admin, viewer = (world.access(world.user(role, role=role)) for role in ("admin", "viewer"))
    guest = world.user("guest")
    world.do(set_workspace_role, guest, lab, Role.ADMIN, within=world.home, access=OPERATOR)
    guests = world.access(guest)
    refused(NOT_ALLOWED, invited, world, access=viewer)
    refused(NOT_ALLOWED, invited, world, access=admin, role=Role.OWNER)
    refused(NOT_FOUND, invited, world, access=admin, organisation=other)
    refused(NOT_FOUND, invited, world, access=admin, workspace=world.do(create_workspace, other, "x", ids=world.ids).id)
    refused(NOT_ALLOWED, invited, world, access=guests)
    refused(VALIDATION, invited, world, "a b", access=admin)
    refused(CONFLICT, invited, world, "viewer", access=admin)
    link = invited(world, access=guests, workspace="lab", role=Role.DEVELOPER)
    invited(world, "bob", access=admin)
    assert [row.email for row in listed(world, guests)] == ["ada@example.com"]
    assert {row.email for row in listed(world, admin)} == {"ada@example.com", "bob@example.com"}
    refused(NOT_FOUND, world.see, list_invitations, other, access=admin, clock=world.clock)
    logged_in, _ = redeem(world, link)
    access = world.access(logged_in.user)
    assert access.roles == {}
    assert access.may(Permission.KEYS_CREATE, world.home, lab)
    assert not access.may(Permission.KEYS_CREATE, world.home)


def listed(world, access):
    return world.see(list_invitations, world.home, access=access, clock=world.clock)


def test_invitations_are_replaced_withdrawn_and_bounded(world, monkeypatch):
    admin = world.access(world.user("boss", role="admin"))
    first, second = invited(world, access=admin), invited(world, access=admin, role=Role.VIEWER)
    refused(NOT_FOUND, redeem, world, first)
    assert [(row.id, row.role) for row in listed(world, admin)] == [(second.id, Role.VIEWER)]
    other = world.organisation("other")
    outsider = world.access(world.user("eve", other, "owner"))
    by = {"access": outsider}
    refused(NOT_FOUND, world.do, withdraw_invitation, second.id, world.home, **by)
    refused(NOT_FOUND, world.do, withdraw_invitation, second.id, other, **by)
    world.do(withdraw_invitation, second.id, world.home, access=admin)
    refused(NOT_FOUND, world.do, withdraw_invitation, second.id, world.home, access=admin)
    refused(NOT_FOUND, redeem, world, second)
    assert listed(world, admin) == []
    monkeypatch.setattr("gateway.accounts.invitations.OPEN_MAX", 1)
    invited(world, access=admin)
    refused(CONFLICT, invited, world, "bob", access=admin)


def test_a_role_that_came_in_the_meantime_stays(world):
    link = invited(world, role=Role.VIEWER)
    ada = world.user("ada", password=PASSWORD, role="admin")
    signed_in = world.signed_in(world.log_in("ada").token)
    with world.database.unit_of_work() as session:
        change = accept_invitation(session, link.token.get_secret_value(), signed_in, HERE, world.clock)
    assert change.publish == ()
    assert world.access(ada).roles == {world.home: Role.ADMIN}


def test_the_first_administrator(world):
    first = world.do(first_login_link, world.home, ids=world.ids)
    second = world.do(first_login_link, world.home, ids=world.ids)
    refused(NOT_FOUND, redeem, world, first, email="root@example.com")
    refused(VALIDATION, redeem, world, second)  # it names no address: whoever uses it must
    logged_in, _ = redeem(world, second, email="Root@example.com", name="Root")
    access = world.access(logged_in.user)
    assert access.operator
    assert access.roles == {world.home: Role.OWNER}
    assert world.do(first_login_link, world.home, ids=world.ids) is None
    world.log_in("root")


def test_a_first_link_is_worth_nothing_once_there_is_an_operator(world):
    link = world.do(first_login_link, world.home, ids=world.ids)
    world.user("root", is_operator=True, password=PASSWORD)
    refused(CONFLICT, redeem, world, link, email="eve@example.com")


def test_only_operators_make_links_to_a_password(world):
    ada = world.user("ada", role="viewer", password=PASSWORD)
    owner = world.access(world.user("boss", role="owner"))
    refused(NOT_ALLOWED, world.do, password_link, ada, access=owner, ids=world.ids)
    ci = world.do(create_service_account, world.home, "ci", Role.VIEWER, access=OPERATOR, ids=world.ids).id
    refused(CONFLICT, new_password, world, ci)
    old = world.log_in("ada").token
    first, second = new_password(world, ada), new_password(world, "ada@example.com")
    refused(NOT_FOUND, redeem, world, first, NEW)
    refused(VALIDATION, redeem, world, second, "short")
    logged_in, _ = redeem(world, second, NEW, name="Mallory", email="mallory@example.com")
    assert logged_in.user == ada
    assert world.signed_in(logged_in.token).email == "ada@example.com"
    assert world.signed_in(old) is None
    world.log_in("ada", NEW)
    said = [entry.action for entry in reversed(world.see(list_audit, within=None)) if entry.target_id == ada]
    assert "user.set_password" in said


def test_a_forgotten_password(world):
    ada = world.user("ada", password=PASSWORD)
    assert forgot(world, "nobody") is None
    link = forgot(world, "ADA")
    assert (link.purpose, link.email) == (Purpose.RESET, "ada@example.com")
    world.do(disable_user, ada)
    refused(NOT_FOUND, redeem, world, link, NEW)
    assert forgot(world, "ada") is None
    refused(CONFLICT, new_password, world, ada)


def test_nobody_is_flooded_with_mail(world):
    world.user("ada", password=PASSWORD)
    links = [forgot(world, "ada", Origin(f"192.0.2.{number}")) for number in range(4)]
    assert None not in links
    assert refused(TOO_MANY_ATTEMPTS, forgot, world, "ada", Origin("192.0.2.99")).retry_after_s == 1
    world.log_in("ada")  # asking in her name does not lock her out


def test_another_password_ends_links_to_it(world):
    world.user("ada", password=PASSWORD)
    link = forgot(world, "ada")
    world.door.change_password(world.signed_in(world.log_in("ada").token), PASSWORD, NEW, HERE)
    refused(NOT_FOUND, redeem, world, link)


def test_old_links_are_thrown_away(world):
    invited(world)
    world.clock.advance(40 * 24 * 3_600_000)
    invited(world, "bob")
    assert [row.email for row in world.see(lambda s: s.scalars(select(OneTimeLink)).all())] == ["bob@example.com"]


def test_roles_given_by_a_link_obey_the_last_owner(world):
    link = invited(world, role=Role.OWNER)
    ada = redeem(world, link)[0].user
    refused(CONFLICT, world.do, set_role, ada, world.home, Role.VIEWER, access=world.access(ada))
