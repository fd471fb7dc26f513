"""Keys in SQL: made, changed, rotated, revoked, listed; and that nobody reaches those of another organisation."""

import threading
from dataclasses import replace

import pytest
from sqlalchemy import select

from billing.models import KeyLastUsed
from core.db import insert_new
from core.errors import CONFLICT, NOT_ALLOWED, NOT_FOUND, VALIDATION, PlatformError
from core.ids import SystemIds
from gateway.accounts.api_keys import (
    change_key,
    find_key,
    list_keys,
    revoke_key,
    rotate_key,
)
from gateway.accounts.generations import Generation, generation_of
from gateway.accounts.models import ApiKey, AuditEntry, KeySecret
from gateway.accounts.terms import KeyTerms, terms_of
from gateway.accounts.trail import list_audit
from gateway.accounts.workspaces import archive_workspace, create_workspace, default_workspace_of
from tests.accounts_world import PEPPERS, TIERS, AccountsWorld


@pytest.fixture
def world(database):
    return AccountsWorld(database)


def rotate(world, key_id, overlap_s=60, **options):
    return world.do(rotate_key, key_id, overlap_s, **{"peppers": PEPPERS, "ids": world.ids, "within": None, **options})


def secrets_of(world, key_id):
    def read(session):
        return list(session.scalars(select(KeySecret).where(KeySecret.key_id == key_id).order_by(KeySecret.created_ms)))

    return world.see(read)


def test_a_key_is_shown_once_and_kept_as_a_digest(world):
    new = world.key("first")
    key = new.key.get_secret_value()
    assert key not in repr(new)
    (secret,) = secrets_of(world, new.id)
    assert secret.digest == PEPPERS.digest(key)
    with world.database.reading() as session:
        for model in (ApiKey, KeySecret, AuditEntry):
            for kept in session.scalars(select(model)):
                assert key[15:] not in str(vars(kept))
    (listed,) = world.see(list_keys, within=None)
    assert (listed.id, listed.name, listed.workspace, listed.organisation) == (new.id, "first", "default", "default")
    assert (listed.scopes, listed.tiers, listed.networks) == (("inference", "usage:read"), None, ())
    assert (listed.revoked_ms, listed.last_used_ms, listed.overlap_ms, listed.created_by) == (
        None,
        None,
        None,
        "cli:ada",
    )
    assert key.endswith(listed.hint)


def test_lists_tell_when_a_key_was_last_used(world):
    new, unused = world.key(), world.key()
    with world.database.unit_of_work() as session:
        insert_new(session, KeyLastUsed, [{"key_id": new.id, "last_used_ms": 9}], ["key_id"])
    listed = {key.id: key.last_used_ms for key in world.see(list_keys, within=None)}
    assert listed == {new.id: 9, unused.id: None}


def test_lists_are_read_in_pages_and_by_name(world):
    made = [world.key(f"key {number}").id for number in range(5)]
    listed = [
        world.see(list_keys, within=None, offset=0, count=2),
        world.see(list_keys, within=None, offset=4, count=2),
        world.see(list_keys, within=None, name="key 3"),
        world.see(list_keys, within=None, name="%"),
    ]
    assert [[key.id for key in page] for page in listed] == [made[:2], made[4:], [made[3]], []]


def test_what_a_key_may_do_is_checked_and_kept_in_order(world):
    new = world.key(
        scopes=("usage:read", "admin:write", "admin:read"),
        tiers=("mistral-tiny", "mistral-embed", "mistral-tiny"),
        networks=("10.0.0.0/8", " ::1 "),
        expires_ms=world.clock.now_ms() + 1,
    )
    kept = terms_of(world.see(find_key, new.id, within=None))
    assert kept == KeyTerms(
        "test",
        ("admin:read", "admin:write", "usage:read"),
        ("mistral-embed", "mistral-tiny"),
        ("10.0.0.0/8", "::1/128"),
        world.clock.now_ms() + 1,
    )


@pytest.mark.parametrize(
    ("terms", "kind"),
    [
        ({"name": " "}, VALIDATION),
        ({"name": "x" * 129}, VALIDATION),
        ({"name": "two\nlines"}, VALIDATION),
        ({"expires_ms": 1_700_000_000_000}, VALIDATION),
        ({"scopes": ()}, VALIDATION),
        ({"scopes": ("inference", "everything")}, VALIDATION),
        ({"scopes": ("inference", "admin:read")}, VALIDATION),
        ({"scopes": ("operator", "inference")}, VALIDATION),
        ({"scopes": ("operator",), "within": "{default}"}, NOT_ALLOWED),
        ({"tiers": ()}, VALIDATION),
        ({"tiers": ("mistral-huge",)}, VALIDATION),
        ({"networks": ("10.0.0.1/8",)}, VALIDATION),
        ({"networks": ("home.example",)}, VALIDATION),
        ({"networks": tuple(f"10.0.0.{n}" for n in range(65))}, VALIDATION),
        ({"workspace": "nowhere"}, NOT_FOUND),
    ],
)
def test_what_cannot_be_made_is_said_and_leaves_nothing(sqlite_database, terms, kind):
    world = AccountsWorld(sqlite_database)
    if "within" in terms:
        terms = {**terms, "within": world.default.organisation}
    with pytest.raises(PlatformError) as caught:
        world.key(**terms)
    assert caught.value.kind is kind
    assert world.see(list_keys, within=None) == []
    assert world.see(list_audit, within=None) == []


def test_an_archived_workspace_takes_no_new_keys(world):
    lab = world.do(create_workspace, world.default.organisation, "lab", ids=world.ids).id
    world.do(archive_workspace, lab, within=None)
    with pytest.raises(PlatformError) as caught:
        world.key(workspace=lab)
    assert caught.value.kind is CONFLICT


def test_a_rotation_leaves_two_secrets_and_one_id(world):
    first = world.key()
    world.clock.advance(1_000)
    second = rotate(world, first.id, 60)
    assert (second.id, second.publish) == (first.id, (Generation(world.default.organisation, 2),))
    old, new = secrets_of(world, first.id)
    assert (old.expires_ms, new.expires_ms) == (world.clock.now_ms() + 60_000, None)
    assert new.digest == PEPPERS.digest(second.key.get_secret_value())
    (listed,) = world.see(list_keys, within=None)
    assert (listed.overlap_ms, listed.hint) == (old.expires_ms, new.hint)


def test_there_are_never_more_than_two_secrets(world):
    first = world.key()
    rotate(world, first.id, 60)
    world.clock.advance(59_999)
    with pytest.raises(PlatformError) as caught:
        rotate(world, first.id, 60)
    assert caught.value.kind is CONFLICT
    last = rotate(world, first.id, 0)
    alive = [secret for secret in secrets_of(world, first.id) if secret.expires_ms is None]
    assert [secret.digest for secret in alive] == [PEPPERS.digest(last.key.get_secret_value())]
    assert {secret.expires_ms for secret in secrets_of(world, first.id)} == {None, world.clock.now_ms()}
    rotate(world, first.id, 60)
    assert len(secrets_of(world, first.id)) == 2


def test_two_rotations_at_once_are_one(world):
    key_id, ids, outcomes = world.key().id, SystemIds(world.clock), []
    barrier = threading.Barrier(2)

    def turn():
        barrier.wait(10)
        try:
            outcomes.append(rotate(world, key_id, 60, ids=ids).id)
        except PlatformError as error:
            outcomes.append(error.kind)

    threads = [threading.Thread(target=turn) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(map(str, outcomes)) == sorted(map(str, [key_id, CONFLICT]))
    assert len(secrets_of(world, key_id)) == 2


def test_what_is_over_cannot_be_rotated_or_changed(world):
    revoked, expired = world.key(), world.key(expires_ms=world.clock.now_ms() + 1)
    world.do(revoke_key, revoked.id, within=None)
    world.clock.advance(1)
    for key_id in (revoked.id, expired.id):
        with pytest.raises(PlatformError) as caught:
            rotate(world, key_id)
        assert caught.value.kind is CONFLICT
    with pytest.raises(PlatformError) as caught:
        world.do(change_key, revoked.id, KeyTerms("again"), within=None)
    assert caught.value.kind is CONFLICT
    with pytest.raises(PlatformError) as caught:
        rotate(world, world.key().id, 30 * 86_400 + 1)
    assert caught.value.kind is VALIDATION


def test_a_change_is_published_and_in_the_log_and_only_what_changed(world):
    key_id = world.key().id
    terms = terms_of(world.see(find_key, key_id, within=None))
    wanted = replace(terms, name="ci", tiers=("mistral-tiny",))
    told = [world.do(change_key, key_id, wanted, within=None, known_tiers=TIERS) for _ in range(2)]
    assert [change.publish for change in told] == [(Generation(world.default.organisation, 2),)] * 2
    entry = world.see(list_audit, within=None, count=1)[0]
    assert (entry.action, entry.target_id) == ("api_key.change", key_id)
    assert (entry.before, entry.after) == ({"name": "test", "tiers": None}, {"name": "ci", "tiers": ["mistral-tiny"]})


def test_revoking_raises_the_generation_once(world):
    new = world.key()
    answers = [world.do(revoke_key, new.id, within=None) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0].publish == (Generation(world.default.organisation, 2),)
    assert world.see(find_key, new.id, within=None).revoked_ms == world.clock.now_ms()
    actions = [entry.action for entry in world.see(list_audit, within=None)]
    assert actions == ["api_key.revoke", "api_key.create"]


def test_another_organisations_keys_do_not_exist(world):
    """Every function, with the same words as for a key that never was."""
    mine, theirs = world.key("mine").id, world.organisation("them")
    attempts = [
        lambda key_id: world.see(find_key, key_id, within=theirs),
        lambda key_id: world.do(revoke_key, key_id, within=theirs),
        lambda key_id: rotate(world, key_id, within=theirs),
        lambda key_id: world.do(change_key, key_id, KeyTerms("stolen"), within=theirs),
    ]
    for attempt in attempts:
        words = []
        for key_id in (mine, "0000000000"):
            with pytest.raises(PlatformError) as caught:
                attempt(key_id)
            assert caught.value.kind is NOT_FOUND
            words.append(caught.value.message.replace(key_id, "ID"))
        assert words[0] == words[1]
    assert world.see(list_keys, within=theirs) == []
    for workspace in (world.default.workspace, "nowhere"):
        with pytest.raises(PlatformError) as caught:
            world.key(workspace=workspace, within=theirs)
        assert caught.value.kind is NOT_FOUND
        with pytest.raises(PlatformError):
            world.see(list_keys, within=theirs, workspace=workspace)
    assert world.see(generation_of, world.default.organisation).number == 1
    own = world.key(workspace=world.see(default_workspace_of, theirs), within=theirs)
    assert [key.id for key in world.see(list_keys, within=theirs)] == [own.id]
