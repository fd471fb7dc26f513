"""Log-in and console sessions: who gets in, how long it lasts, what ends it, and that guessing is slow."""

import threading

import pytest
from argon2 import Parameters, Type
from argon2.profiles import CHEAPEST
from sqlalchemy import func, select

from core.errors import TOO_MANY_ATTEMPTS, UNAUTHORIZED, VALIDATION, PlatformError
from gateway.accounts import sessions, throttle
from gateway.accounts.access import OPERATOR
from gateway.accounts.door import Door
from gateway.accounts.members import create_service_account, set_role
from gateway.accounts.models import AuditEntry
from gateway.accounts.people import Attempts, ConsoleSession, User
from gateway.accounts.roles import Permission, Role
from gateway.accounts.sessions import (
    AGE_MS_MAX,
    IDLE_MS_MAX,
    Origin,
    check_csrf,
    csrf_token,
    digest_of,
    end_sessions,
    list_sessions,
    log_out,
    session_of,
    touch_session,
)
from gateway.accounts.throttle import Counted, wait_after_ms
from gateway.accounts.users import disable_user
from tests.accounts_world import ACTOR
from tests.people_world import HERE, PASSWORD, PeopleWorld

NEW = "another long password"


@pytest.fixture
def world(database):
    world = PeopleWorld(database)
    world.ada = world.user("ada", role="developer", password=PASSWORD)
    return world


def refused(kind, call, *arguments, **options):
    with pytest.raises(PlatformError) as error:
        call(*arguments, **options)
    assert error.value.kind is kind, error.value.message
    return error.value


def everything_kept(world):
    """All that SQL holds of people, as text."""
    with world.database.reading() as session:
        models = (User, ConsoleSession, Attempts, AuditEntry)
        return "\n".join(str(vars(row)) for model in models for row in session.scalars(select(model)))


def test_who_logs_in_is_known_until_he_logs_out(world):
    first = world.log_in("ada")
    second = world.door.log_in(" ADA@example.com", PASSWORD, Origin())
    assert first.token != second.token
    signed_in = world.signed_in(first.token)
    assert (signed_in.user, signed_in.email, signed_in.name) == (world.ada, "ada@example.com", "ada")
    assert signed_in.access.may(Permission.KEYS_CREATE, world.home)
    assert not signed_in.touch_due
    assert world.see(lambda session: session.get(User, world.ada)).last_login_ms == world.clock.now_ms()
    with world.database.unit_of_work() as session:
        log_out(session, signed_in, HERE, world.clock)
    assert world.signed_in(first.token) is None
    assert world.signed_in(second.token) is not None
    for wrong in ("", "x" * 64, "0" * 64, "\ud800" * 64, first.token.get_secret_value()[:-1]):
        assert world.see(session_of, wrong, world.clock) is None


def test_no_secret_is_kept_or_shown(world):
    logged_in = world.log_in("ada")
    signed_in = world.signed_in(logged_in.token)
    world.door.change_password(signed_in, PASSWORD, NEW, HERE)
    token = logged_in.token.get_secret_value()
    kept = everything_kept(world)
    assert digest_of(token) in kept
    for secret in (token, csrf_token(token), PASSWORD, NEW):
        assert secret not in kept
        assert secret not in repr((logged_in, signed_in))
    with world.database.reading() as session:
        user = session.get_one(User, world.ada)
        assert "$argon2id$" not in repr(user)
        entries = session.scalars(select(AuditEntry).where(AuditEntry.target_id == world.ada)).all()
        assert not any("argon2" in str(vars(entry)) for entry in entries)
        log_in = next(entry for entry in entries if entry.action == "user.log_in")
        assert (log_in.actor_kind, log_in.actor_id, log_in.actor_name) == ("user", world.ada, "ada@example.com")
        assert (log_in.address, log_in.request_id) == (HERE.address, HERE.request_id)
        assert entries[-1].action == "user.change_password"


def test_unknown_wrong_disabled_and_service_are_one_answer_after_the_same_work(world):
    world.user("eve", password=PASSWORD)
    world.user("new")  # has no password yet
    world.do(create_service_account, world.home, "ci", Role.DEVELOPER, access=OPERATOR, ids=world.ids)
    world.do(disable_user, world.user("bob", password=PASSWORD))
    attempts = [("eve", "wrong"), ("nobody", PASSWORD), ("bob", PASSWORD), ("new", ""), ("ci", PASSWORD)]
    said = {refused(UNAUTHORIZED, world.log_in, *attempt).message for attempt in attempts}
    assert len(said) == 1
    assert [kept is not None for kept in world.passwords.checked] == [True, False, True, False, False]
    with world.database.reading() as session:
        assert session.scalars(select(func.count()).select_from(ConsoleSession)).one() == 0


def test_sessions_end_when_idle_and_when_old(world):
    token = world.log_in("ada").token
    world.clock.advance(IDLE_MS_MAX - 1)
    signed_in = world.signed_in(token)
    assert signed_in.touch_due
    assert signed_in.expires_ms == world.clock.now_ms() + 1
    with world.database.unit_of_work() as session:
        touch_session(session, signed_in.id, world.clock)
    assert not world.signed_in(token).touch_due
    world.clock.advance(IDLE_MS_MAX)
    assert world.signed_in(token) is None
    assert world.see(list_sessions, world.ada, world.clock) == []

    token = world.log_in("ada").token
    began_ms = world.clock.now_ms()
    while world.clock.now_ms() + IDLE_MS_MAX - 1 < began_ms + AGE_MS_MAX:
        world.clock.advance(IDLE_MS_MAX - 1)
        with world.database.unit_of_work() as session:
            touch_session(session, digest_of(token.get_secret_value()), world.clock)
    assert world.signed_in(token).expires_ms == began_ms + AGE_MS_MAX
    world.clock.advance(began_ms + AGE_MS_MAX - world.clock.now_ms())
    assert world.signed_in(token) is None
    world.log_in("ada")  # and what is too old is thrown away
    assert world.see(lambda session: session.scalars(select(func.count()).select_from(ConsoleSession)).one()) == 1


def test_there_are_never_more_than_so_many(world, monkeypatch):
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 3)
    tokens = []
    for _ in range(5):
        world.clock.advance(1)
        tokens.append(world.log_in("ada").token)
    known = [world.signed_in(token) is not None for token in tokens]
    assert known == [False] * 2 + [True] * 3


def test_one_or_all_others_can_be_ended(world):
    tokens = [world.log_in("ada", origin=Origin(f"192.0.2.{number}", "x" * 999)).token for number in range(4)]
    other = world.user("bob", password=PASSWORD)
    bobs = world.log_in("bob").token
    rows = world.see(list_sessions, world.ada, world.clock)
    assert {row.address for row in rows} == {f"192.0.2.{number}" for number in range(4)}
    assert {len(row.user_agent) for row in rows} == {200}
    mine, others = world.signed_in(tokens[0]).id, world.signed_in(bobs).id
    assert world.do(end_sessions, world.ada, only=others) == 0  # bob's is not hers to end
    assert world.do(end_sessions, world.ada, only=world.signed_in(tokens[1]).id) == 1
    assert world.do(end_sessions, world.ada, keep=mine) == 2
    assert [world.signed_in(token) is not None for token in tokens] == [True, False, False, False]
    assert world.do(end_sessions, other) == 1
    assert world.signed_in(bobs) is None


def test_a_new_password_ends_the_other_sessions(world):
    here, there = world.log_in("ada").token, world.log_in("ada").token
    signed_in = world.signed_in(here)
    refused(UNAUTHORIZED, world.door.change_password, signed_in, "wrong", NEW, HERE)
    refused(VALIDATION, world.door.change_password, signed_in, PASSWORD, "short", HERE)
    world.door.change_password(signed_in, PASSWORD, NEW, HERE)
    assert world.signed_in(here) is not None
    assert world.signed_in(there) is None
    refused(UNAUTHORIZED, world.log_in, "ada")
    world.log_in("ada", NEW)


def test_disabled_is_out_at_once(world):
    token = world.log_in("ada").token
    world.do(disable_user, world.ada)
    assert world.signed_in(token) is None
    refused(UNAUTHORIZED, world.log_in, "ada")


def test_a_changed_role_counts_in_open_sessions(world):
    token = world.log_in("ada").token
    world.do(set_role, world.ada, world.home, Role.VIEWER, access=OPERATOR)
    assert not world.signed_in(token).access.may(Permission.KEYS_CREATE, world.home)


def test_csrf_tokens_belong_to_their_session(world):
    mine, other = (world.log_in("ada").token.get_secret_value() for _ in range(2))
    assert check_csrf(mine, csrf_token(mine))
    for given in ("", csrf_token(other), mine, csrf_token(mine)[:-1], "\ud800", "ä"):
        assert not check_csrf(mine, given)


def test_an_old_hash_is_made_anew_at_log_in(world):
    stronger = Parameters(Type.ID, 19, 8, 4, time_cost=2, memory_cost=8, parallelism=1)
    door = Door(world.database, type(world.passwords)(stronger), clock=world.clock, ids=world.ids)
    before = world.see(lambda session: session.get(User, world.ada)).password_hash
    door.log_in("ada@example.com", PASSWORD, HERE)
    after = world.see(lambda session: session.get(User, world.ada)).password_hash
    assert (",t=1," in before, ",t=2," in after) == (True, True)
    world.log_in("ada")
    assert CHEAPEST.time_cost == 1  # and back, with the parameters of whoever checks
    assert ",t=1," in world.see(lambda session: session.get(User, world.ada)).password_hash


def test_guessing_a_password_waits_longer_each_time(world):
    for _ in range(Counted.EMAIL.free):
        refused(UNAUTHORIZED, world.log_in, "ada", "wrong")
    waits = []
    for _ in range(12):
        refused(UNAUTHORIZED, world.log_in, "ada", "wrong", Origin("198.51.100.7"))
        checked = len(world.passwords.checked)
        error = refused(TOO_MANY_ATTEMPTS, world.log_in, "ada", PASSWORD)  # the right one, too, and unseen
        assert len(world.passwords.checked) == checked
        waits.append(error.retry_after_s)
        world.clock.advance(error.retry_after_s * 1_000)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]
    world.log_in("ada")
    refused(UNAUTHORIZED, world.log_in, "ada", "wrong")  # forgiven: the first of five again
    world.log_in("ada")
    with world.database.reading() as session:
        kept = session.scalars(select(AuditEntry).where(AuditEntry.action == "login.throttle")).all()
    assert [entry.target_kind for entry in kept] == ["attempts_email"]


def test_unknown_addresses_wait_alike(world):
    waits = {}
    for name in ("ada", "nobody"):
        for _ in range(Counted.EMAIL.free + 1):
            refused(UNAUTHORIZED, world.log_in, name, "wrong", Origin())
        waits[name] = refused(TOO_MANY_ATTEMPTS, world.log_in, name, "wrong", Origin()).retry_after_s
    assert waits["ada"] == waits["nobody"]


def test_one_network_address_cannot_try_many_people(world):
    far = [Origin(f"2001:db8:0:1::{number:x}") for number in range(1, 40)]  # one customer's /64
    for number in range(Counted.ADDRESS.free + 1):
        refused(UNAUTHORIZED, world.log_in, f"user{number}", "wrong", far[number])
    refused(TOO_MANY_ATTEMPTS, world.log_in, "ada", PASSWORD, far[30])
    world.log_in("ada", origin=Origin("2001:db8:0:2::1"))
    world.log_in("ada", origin=Origin("::ffff:192.0.2.9"))
    with world.database.reading() as session:
        count = session.get_one(Attempts, throttle.subjects_of("x", "192.0.2.9")[1].digest).count
    assert count == 0  # a log-in that succeeds does not count, and clears nobody else's


def test_an_account_of_ones_own_does_not_clear_the_address(world):
    world.user("eve", password=PASSWORD)
    for number in range(Counted.ADDRESS.free):
        refused(UNAUTHORIZED, world.log_in, f"user{number}", "wrong")
    world.log_in("eve")
    refused(UNAUTHORIZED, world.log_in, "user99", "wrong")
    refused(TOO_MANY_ATTEMPTS, world.log_in, "user98", "wrong")


def test_a_hundred_at_once_are_no_way_around(world):
    tries, outcomes = 24, []
    start = threading.Barrier(6)

    def guess():
        start.wait(10)
        for _ in range(tries // 6):
            try:
                world.log_in("ada", "wrong", Origin())
            except PlatformError as error:
                outcomes.append(error.kind)

    threads = [threading.Thread(target=guess) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(world.passwords.checked) == Counted.EMAIL.free + 1
    assert outcomes.count(TOO_MANY_ATTEMPTS) == tries - Counted.EMAIL.free - 1


def test_what_is_counted_is_bounded_and_forgotten(world, monkeypatch):
    monkeypatch.setattr(throttle, "ROWS_MAX", 10)
    for number in range(15):
        world.clock.advance(1)
        refused(UNAUTHORIZED, world.log_in, f"user{number}", "wrong", Origin())

    def rows():
        return world.see(lambda session: session.scalars(select(func.count()).select_from(Attempts)).one())

    assert rows() <= 11
    for _ in range(Counted.EMAIL.free + 3):
        world.clock.advance(throttle.WAIT_MS_MAX)
        refused(UNAUTHORIZED, world.log_in, "ada", "wrong", Origin())
    world.clock.advance(throttle.FORGOTTEN_MS)
    for _ in range(Counted.EMAIL.free):
        refused(UNAUTHORIZED, world.log_in, "ada", "wrong", Origin())
    assert rows() == 1


@pytest.mark.parametrize("counted", list(Counted))
def test_waits_only_grow_and_end(counted):
    waits = [wait_after_ms(counted, count) for count in range(200)]
    assert waits[: counted.free + 2] == [0] * (counted.free + 1) + [1_000]
    assert waits == sorted(waits)
    assert waits[-1] == 15 * 60_000


def test_the_actor_of_a_session_is_its_user(world):
    signed_in = world.signed_in(world.log_in("ada").token)
    actor = signed_in.actor(HERE)
    assert (actor.kind, actor.label, actor.address) == ("user", f"user:{world.ada}", HERE.address)
    assert actor != ACTOR
