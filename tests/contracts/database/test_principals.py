"""Principals: one query for many callers, a bounded cache, and what happens while SQL is away."""

import asyncio
import threading
from contextlib import contextmanager
from ipaddress import ip_network

import pytest
from pydantic import SecretStr

from billing.calendar import windows
from core.clock import ManualClock
from core.db import Database, DatabaseUnavailableError, connect_database
from core.errors import UNAUTHORIZED, UNAVAILABLE, PlatformError
from core.ids import SystemIds
from core.queue.rules import Rule, RuleKind
from gateway.accounts.api_keys import revoke_key, rotate_key
from gateway.accounts.console_keys import open_console_key
from gateway.accounts.keys import Pepper, Peppers, generate_key
from gateway.accounts.limits import LimitTerms, Subject, SubjectKind, set_limit
from gateway.accounts.loading import ARCHIVED, EXPIRED, INACTIVE, NOT_A_KEY, REVOKED, ROTATED
from gateway.accounts.organisations import resume_organisation, set_organisation_lenient, suspend_organisation
from gateway.accounts.principals import PrincipalSettings, SqlPrincipals
from gateway.accounts.users import create_user
from gateway.accounts.workspaces import archive_workspace, create_workspace, set_workspace_lenient
from gateway.principal import Standing
from gateway.routes.access import Caller
from migrations.models import METADATA
from tests.accounts_world import PEPPERS, TIERS, AccountsWorld


class Watched(Database):
    """Counts what is read, can be away, and can hold its readers."""

    def __init__(self, database: Database) -> None:
        super().__init__(database._engine)
        self.reads = 0
        self.away = False
        self.open = threading.Event()
        self.open.set()

    @contextmanager
    def reading(self):
        self.reads += 1
        assert self.open.wait(10)
        if self.away:
            raise DatabaseUnavailableError("SQL: away")
        with super().reading() as session:
            yield session


class Scene:
    def __init__(self, database: Database, **settings: float) -> None:
        self.world = AccountsWorld(database)
        self.default = self.world.default
        self.clock = self.world.clock
        self.ids = SystemIds(self.clock)
        self.database = Watched(database)
        self.settings = PrincipalSettings(**settings)
        self.principals = SqlPrincipals(self.database, PEPPERS, self.clock, TIERS, self.settings)

    def key(self, **options) -> str:
        return self.world.key(**options).key.get_secret_value()

    def revoke(self, key: str) -> None:
        self.world.do(revoke_key, id_of(key), within=None)

    async def refused(self, key: str):
        with pytest.raises(PlatformError) as caught:
            await self.principals.by_key(key)
        return caught.value


def id_of(key: str) -> str:
    return key.split("_")[1]


@pytest.fixture
def scene(database):
    return Scene(database)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - set by threads
            await asyncio.sleep(0.001)


async def test_a_principal_has_all_that_admission_needs(scene):
    key = scene.key(scopes=("inference", "usage:read"))
    principal = await scene.principals.by_key(key)
    organisation = scene.default.organisation
    assert (principal.key_id, principal.workspace) == (key.split("_")[1], scene.default.workspace)
    assert (principal.organisation, principal.generation, principal.weight) == (organisation, 1, 3)
    assert principal.scopes == {"inference", "usage:read"}
    assert principal.rules == (
        Rule(RuleKind.REQUESTS_PER_MINUTE, "organisation", organisation, 60),
        Rule(RuleKind.TOKENS_PER_MINUTE, "organisation", organisation, 1000),
        Rule(RuleKind.CONCURRENCY, "organisation", organisation, 5),
    )
    assert (principal.tiers, principal.networks, principal.lenient, principal.user_id) == (None, (), False, "")
    assert principal.key_name == "test"


async def test_the_key_of_a_chat_is_known_by_its_id_alone(scene):
    world, default = scene.world, scene.default
    user = world.do(create_user, "ada@example.com", "Ada", ids=scene.ids).id
    options = {"within": default.organisation, "ids": scene.ids}
    made = world.do(open_console_key, user, default.workspace, **options)
    assert world.do(open_console_key, user, default.workspace, **options).id == made.id
    principal = await scene.principals.by_id(made.id)
    assert (principal.key_id, principal.user_id, principal.key_name) == (made.id, user, "Chat of Ada")
    assert (principal.scopes, principal.workspace) == ({"inference"}, default.workspace)
    assert await scene.principals.by_id(made.id) is principal, "cached"
    forged = generate_key(scene.ids, made.id).key.get_secret_value()
    assert (await scene.refused(forged)).kind is UNAUTHORIZED
    world.do(revoke_key, made.id, within=None)
    assert await scene.principals.by_id(made.id) is principal, "admission calls it stale"
    assert await scene.principals.valid(made.id) is None
    scene.principals.forget_id(made.id)
    with pytest.raises(PlatformError, match="revoked"):
        await scene.principals.by_id(made.id)


async def test_a_principal_has_what_its_key_and_workspace_say(scene):
    organisation = scene.default.organisation
    lab = scene.world.do(create_workspace, organisation, "lab", ids=scene.ids).id
    key = scene.key(workspace=lab, tiers=("mistral-tiny",), networks=("10.0.0.0/8", "::1"))
    for kind, name, terms in (
        (SubjectKind.KEY, id_of(key), LimitTerms(RuleKind.SPEND_PER_MONTH, 7)),
        (SubjectKind.WORKSPACE, lab, LimitTerms(RuleKind.CONCURRENCY, 0, "mistral-tiny")),
        (SubjectKind.ORGANISATION, organisation, LimitTerms(RuleKind.CONCURRENCY, 9)),
        (SubjectKind.CUSTOMER, organisation, LimitTerms(RuleKind.REQUESTS_PER_MINUTE, 6)),
    ):
        scene.world.do(set_limit, Subject(kind, name), terms, within=None, known_tiers=TIERS, ids=scene.ids)
    principal = await scene.principals.by_key(key)
    assert principal.tiers == {"mistral-tiny"}
    assert principal.networks == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    spans = windows(RuleKind.SPEND_PER_MONTH, "UTC", scene.clock.now_ms())
    assert principal.rules == (
        Rule(RuleKind.REQUESTS_PER_MINUTE, "organisation", organisation, 6),
        Rule(RuleKind.TOKENS_PER_MINUTE, "organisation", organisation, 1000),
        Rule(RuleKind.CONCURRENCY, "organisation", organisation, 9),
        Rule(RuleKind.CONCURRENCY, "workspace", lab, 0, "mistral-tiny"),
        Rule(RuleKind.SPEND_PER_MONTH, "key", id_of(key), 7, windows=spans),
    )


async def test_a_workspace_is_lenient_as_it_says_else_as_its_organisation(scene):
    key, seen = scene.key(), []
    scene.world.do(set_organisation_lenient, scene.default.organisation, True)
    for lenient in (None, False, True):
        scene.world.do(set_workspace_lenient, scene.default.workspace, lenient, within=None)
        seen.append((await scene.principals.by_key(key)).lenient)
        scene.principals.forget(key)
    assert seen == [True, False, True]


async def test_many_callers_of_one_key_ask_sql_once(scene):
    key = scene.key()
    found = await asyncio.gather(*(scene.principals.by_key(key) for _ in range(50)))
    assert len(set(map(id, found))) == 1
    assert scene.database.reads == 1


async def test_an_answer_stands_for_its_time_and_no_longer(scene):
    key = scene.key()
    await scene.principals.by_key(key)
    scene.clock.advance(59_999)
    await scene.principals.by_key(key)
    assert scene.database.reads == 1
    scene.clock.advance(1)
    await scene.principals.by_key(key)
    assert scene.database.reads == 2


async def test_a_mistyped_key_is_refused_without_a_look_up(scene):
    key = scene.key()
    error = await scene.refused(key[:-1] + ("0" if key[-1] != "0" else "1"))
    assert (error.kind, error.message, scene.database.reads) == (UNAUTHORIZED, NOT_A_KEY, 0)


async def test_a_well_formed_key_of_nobody_is_refused_and_remembered_briefly(scene):
    key = generate_key(scene.ids).key.get_secret_value()
    for _ in range(3):
        assert (await scene.refused(key)).kind is UNAUTHORIZED
    assert scene.database.reads == 1
    scene.clock.advance(5_000)
    await scene.refused(key)
    assert scene.database.reads == 2


async def test_the_id_of_a_key_is_not_enough(scene):
    real, other = scene.key(), generate_key(scene.ids).key.get_secret_value()
    forged = SqlPrincipals(scene.database, Peppers(Pepper(1, SecretStr("another"))), scene.clock, TIERS)
    with pytest.raises(PlatformError) as caught:
        await forged.by_key(real)
    assert caught.value.message == NOT_A_KEY
    assert (await scene.refused(other)).message == NOT_A_KEY


async def test_a_revoked_key_is_refused_once_it_is_forgotten(scene):
    key = scene.key()
    assert (await scene.principals.by_key(key)).generation == 1
    scene.revoke(key)
    scene.principals.forget(key)
    assert (await scene.refused(key)).message == REVOKED


async def test_a_rotated_key_is_known_by_both_secrets_until_the_overlap_ends(scene):
    old = scene.key()
    await scene.principals.by_key(old)
    new = scene.world.do(rotate_key, id_of(old), 30, within=None, peppers=PEPPERS, ids=scene.ids)
    scene.principals.forget(old)
    both = [await scene.principals.by_key(key) for key in (old, new.key.get_secret_value())]
    assert [(found.key_id, found.generation) for found in both] == [(id_of(old), 2)] * 2
    scene.clock.advance(29_999)
    await scene.principals.by_key(old)
    scene.clock.advance(1)
    assert (await scene.refused(old)).message == ROTATED
    assert (await scene.principals.by_key(new.key.get_secret_value())).key_id == id_of(old)


async def test_a_key_of_an_older_pepper_is_still_known(scene):
    key = scene.key()
    rotated = Peppers(Pepper(2, SecretStr("cayenne")), (PEPPERS.current,))
    assert (await SqlPrincipals(scene.database, rotated, scene.clock, TIERS).by_key(key)).key_id == id_of(key)
    alone = SqlPrincipals(scene.database, Peppers(rotated.current), scene.clock, TIERS)
    with pytest.raises(PlatformError, match=NOT_A_KEY):
        await alone.by_key(key)


async def test_no_key_of_a_suspended_organisation_is_valid(scene):
    key = scene.key()
    await scene.principals.by_key(key)
    scene.world.do(suspend_organisation, scene.default.organisation)
    scene.principals.forget(key)
    error = await scene.refused(key)
    assert (error.kind, error.message) == (UNAUTHORIZED, INACTIVE)
    scene.world.do(resume_organisation, scene.default.organisation)
    scene.clock.advance(5_000)
    assert (await scene.principals.by_key(key)).generation == 3


async def test_no_key_of_an_archived_workspace_is_valid(scene):
    lab = scene.world.do(create_workspace, scene.default.organisation, "lab", ids=scene.ids).id
    key = scene.key(workspace=lab)
    scene.world.do(archive_workspace, lab, within=None)
    assert (await scene.refused(key)).message == ARCHIVED


async def test_whether_a_key_may_still_run_inference_is_asked_anew(scene):
    expires_ms = scene.clock.now_ms() + 1_000
    key, other = scene.key(expires_ms=expires_ms), scene.key()
    reader = scene.key(scopes=("usage:read",))
    valid = scene.principals.valid
    found = [await valid(id_of(one)) for one in (key, other, reader)]
    assert found == [Standing(1, expires_ms), Standing(1), None]
    assert (await scene.principals.by_key(key)).expires_ms == expires_ms
    scene.clock.advance(1_000)
    assert await valid(id_of(key)) is None
    scene.revoke(other)
    assert await valid(id_of(other)) is None
    last = id_of(scene.key())
    assert await valid(last) == Standing(2)
    scene.world.do(suspend_organisation, scene.default.organisation)
    assert await valid(last) is None
    assert await valid("nobody") is None
    scene.database.away = True
    with pytest.raises(PlatformError) as caught:
        await valid(last)
    assert caught.value.kind is UNAVAILABLE


async def test_a_secret_is_nowhere_in_what_is_kept_or_printed(scene):
    key = scene.key()
    caller = Caller(key, await scene.principals.by_key(key))
    assert key not in f"{caller!r} {caller} {vars(scene.principals)} {scene.principals._known._answers}"
    with scene.database.reading() as session:
        for table in METADATA.sorted_tables:
            assert key[15:] not in str(session.execute(table.select()).all())


async def test_other_keys_of_the_organisation_come_back_with_the_new_generation(scene):
    key, revoked = scene.key(), scene.key()
    await scene.principals.by_key(key)
    scene.revoke(revoked)
    assert (await scene.principals.by_key(key)).generation == 1
    scene.principals.forget(key)
    assert (await scene.principals.by_key(key)).generation == 2


async def test_an_expired_key_is_refused_to_the_millisecond_even_if_cached(scene):
    key = scene.key(expires_ms=scene.clock.now_ms() + 2_000)
    await scene.principals.by_key(key)
    scene.clock.advance(1_999)
    await scene.principals.by_key(key)
    scene.clock.advance(1)
    assert (await scene.refused(key)).message == EXPIRED
    scene.database.away = True
    scene.clock.advance(10_000)
    assert (await scene.refused(key)).kind is UNAVAILABLE


async def test_a_look_up_that_began_before_forget_does_not_count(scene):
    key = scene.key()
    await scene.principals.by_key(key)
    scene.clock.advance(60_000)
    scene.database.open.clear()
    old = asyncio.create_task(scene.principals.by_key(key))
    await until(lambda: scene.database.reads == 2)
    scene.principals.forget(key)
    new = [asyncio.create_task(scene.principals.by_key(key)) for _ in range(10)]
    await until(lambda: scene.database.reads == 3)
    scene.principals.forget(key)  # a second caller that saw it stale: the new look-up is already under way
    new.append(asyncio.create_task(scene.principals.by_key(key)))
    scene.database.open.set()
    await asyncio.gather(old, *new)
    assert scene.database.reads == 3


async def test_while_sql_is_away_nobody_is_told_that_a_key_is_wrong(scene):
    key = scene.key()
    scene.database.away = True
    error = await scene.refused(key)
    assert (error.kind, error.retry_after_s) == (UNAVAILABLE, 1)
    scene.database.away = False
    scene.clock.advance(1_000)
    assert (await scene.principals.by_key(key)).organisation == scene.default.organisation


async def test_sql_is_left_alone_for_a_moment_after_it_failed(scene):
    keys = [scene.key() for _ in range(5)]
    scene.database.away = True
    for key in keys:
        assert (await scene.refused(key)).kind is UNAVAILABLE
    assert scene.database.reads == 1


async def test_a_known_key_works_on_while_sql_is_away_but_not_for_ever(scene):
    key = scene.key()
    known = await scene.principals.by_key(key)
    scene.database.away = True
    scene.clock.advance(599_999)
    assert await scene.principals.by_key(key) is known
    scene.clock.advance(1)
    assert (await scene.refused(key)).kind is UNAVAILABLE


async def test_a_refusal_is_not_used_beyond_its_time(scene):
    key = generate_key(scene.ids).key.get_secret_value()
    assert (await scene.refused(key)).kind is UNAUTHORIZED
    scene.database.away = True
    scene.clock.advance(5_000)
    assert (await scene.refused(key)).kind is UNAVAILABLE


async def test_sql_that_hangs_is_sql_that_is_away(database):
    scene = Scene(database, lookup_s=0.5)
    known, key = scene.key(), scene.key()
    principal = await scene.principals.by_key(known)
    scene.clock.advance(60_000)
    scene.database.open.clear()
    assert (await scene.refused(key)).kind is UNAVAILABLE
    assert await scene.principals.by_key(known) is principal
    scene.database.open.set()
    await until(lambda: not scene.principals._lookups._running)


async def test_look_ups_under_way_are_bounded(database):
    scene = Scene(database, lookups_max=2)
    scene.database.open.clear()
    waiting = [asyncio.create_task(scene.principals.by_key(scene.key())) for _ in range(2)]
    await until(lambda: scene.database.reads == 2)
    assert (await scene.refused(scene.key())).kind is UNAVAILABLE
    scene.database.open.set()
    assert len(await asyncio.gather(*waiting)) == 2


async def test_the_cache_is_bounded_and_made_up_keys_push_nobody_out(database):
    scene = Scene(database, cached_max=2)
    first, second, third = scene.key(), scene.key(), scene.key()
    await scene.principals.by_key(first)
    await scene.principals.by_key(second)
    for _ in range(5):
        await scene.refused(generate_key(scene.ids).key.get_secret_value())
    await scene.principals.by_key(first)
    assert scene.database.reads == 7
    await scene.principals.by_key(third)  # the second was used longest ago
    await scene.principals.by_key(first)
    assert scene.database.reads == 8
    await scene.principals.by_key(second)
    assert scene.database.reads == 9


async def test_a_caller_who_leaves_does_not_end_the_look_up_for_others(scene):
    key = scene.key()
    scene.database.open.clear()
    leaver, stayer = (asyncio.create_task(scene.principals.by_key(key)) for _ in range(2))
    await until(lambda: scene.database.reads == 1)
    leaver.cancel()
    scene.database.open.set()
    assert (await stayer).organisation == scene.default.organisation
    assert scene.database.reads == 1


async def test_a_server_that_is_really_away(tmp_path):
    database = connect_database(f"postgresql://postgres@/nowhere?host={tmp_path}")
    clock = ManualClock()
    principals = SqlPrincipals(database, PEPPERS, clock, TIERS)
    with pytest.raises(PlatformError) as caught:
        await principals.by_key(generate_key(SystemIds(clock)).key.get_secret_value())
    assert caught.value.kind is UNAVAILABLE
    database.close()
