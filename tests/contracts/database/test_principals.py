"""Principals: one query for many callers, a bounded cache, and what happens while SQL is away."""

import asyncio
import threading
from contextlib import contextmanager

import pytest
from pydantic import SecretStr

from core.catalog import Catalog
from core.clock import ManualClock
from core.db import Database, DatabaseUnavailableError, connect_database
from core.errors import UNAUTHORIZED, UNAVAILABLE, PlatformError
from core.ids import SystemIds
from core.queue.rules import Rule, RuleKind
from gateway.accounts.keys import Pepper, generate_key
from gateway.accounts.principals import EXPIRED, NOT_A_KEY, REVOKED, PrincipalSettings, SqlPrincipals
from gateway.accounts.seed import ensure_default
from gateway.accounts.service import create_key, revoke_key

PEPPER = Pepper(1, SecretStr("pepper"))
PLAN = {"requests_per_minute": 60, "tokens_per_minute": 1000, "concurrency": 5, "credit": "1", "weight": 3}
CATALOG = Catalog.model_validate({"plans": {"development": PLAN}, "tiers": []})


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
        self.clock = ManualClock()
        self.ids = SystemIds(self.clock)
        self.database = Watched(database)
        self.settings = PrincipalSettings(**settings)
        self.principals = SqlPrincipals(self.database, PEPPER, self.clock, self.settings)
        with self.database.unit_of_work() as session:
            self.default = ensure_default(session, CATALOG, clock=self.clock, ids=self.ids)

    def key(self, **options) -> str:
        with self.database.unit_of_work() as session:
            made = create_key(session, "default", "test", pepper=PEPPER, clock=self.clock, ids=self.ids, **options)
        return made.key.get_secret_value()

    def revoke(self, key: str) -> None:
        with self.database.unit_of_work() as session:
            revoke_key(session, key.split("_")[1], clock=self.clock)

    async def refused(self, key: str):
        with pytest.raises(PlatformError) as caught:
            await self.principals.by_key(key)
        return caught.value


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
    forged = SqlPrincipals(scene.database, Pepper(1, SecretStr("another")), scene.clock)
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
    scene = Scene(database, lookup_s=0.05)
    known, key = scene.key(), scene.key()
    principal = await scene.principals.by_key(known)
    scene.clock.advance(60_000)
    scene.database.open.clear()
    assert (await scene.refused(key)).kind is UNAVAILABLE
    assert await scene.principals.by_key(known) is principal
    scene.database.open.set()
    await until(lambda: not scene.principals._lookups)


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
    principals = SqlPrincipals(database, PEPPER, clock)
    with pytest.raises(PlatformError) as caught:
        await principals.by_key(generate_key(SystemIds(clock)).key.get_secret_value())
    assert caught.value.kind is UNAVAILABLE
    database.close()
