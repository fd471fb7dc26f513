"""Prices: immutable versions, the most specific that has started wins, and no tier without one."""

import random

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from billing.price_lists import (
    LEAD_MS,
    PriceEntry,
    apply_prices,
    catalog_entries,
    differs,
    parse_price_list,
    read_price_file,
    seed_prices,
)
from billing.prices import KEPT_MS, SKEW_MS, PriceScope, PriceVersion, ensure_priced, price_schedules, price_versions
from core.catalog import Catalog
from core.clock import ManualClock
from core.errors import CONFLICT, VALIDATION, PlatformError, SetupError

CLOCK = ManualClock()
NOW = CLOCK.now_ms()
HOUR_MS = 3_600_000
LATER = NOW + HOUR_MS
PLAN = {"requests_per_minute": 60, "tokens_per_minute": 1000, "concurrency": 5, "credit": "1.5"}


def catalog(price="0.14"):
    tier = {"name": "tiny", "engine": "echo", "weights": "", "context_tokens": 9, "price": {"input": price}}
    return Catalog.model_validate({"plans": {"development": PLAN}, "tiers": [tier]})


@pytest.fixture
def seeded(database):
    with database.unit_of_work() as session:
        seed_prices(session, catalog(), CLOCK)
    return database


@pytest.fixture
def seeded_sqlite(sqlite_database):
    with sqlite_database.unit_of_work() as session:
        seed_prices(session, catalog(), CLOCK)
    return sqlite_database


def entry(input_nano, **scope):
    return PriceEntry(PriceScope("tiny", **scope), input_nano, input_nano, 0)


def put(database, *entries, name="next", start_ms=LATER, now_ms=NOW):
    with database.unit_of_work() as session:
        return apply_prices(session, entries, name=name, now_ms=now_ms, tiers=["tiny"], start_ms=start_ms)


def schedule(database, at_ms, organisation="o1", plan="pro"):
    with database.reading() as session:
        found = price_schedules(session, organisation, plan, ["tiny", "unknown"], at_ms)
    assert set(found) <= {"tiny"}
    return [(price.input_nano, price.start_ms) for price in found.get("tiny", ())]


def test_a_fresh_installation_has_the_prices_of_its_file_once(seeded):
    with seeded.unit_of_work() as session:
        seed_prices(session, catalog("9"), CLOCK)
    with seeded.reading() as session:
        (version,) = price_versions(session)
        assert (version.version, version.input_nano, version.cached_nano) == ("launch:tiny", 140_000, 140_000)
        assert differs(session, catalog_entries(catalog()), NOW) == ()
        (change,) = differs(session, catalog_entries(catalog("9")), NOW)
        assert (change.before.input_nano, change.after.input_nano) == (140_000, 9_000_000)
        ensure_priced(session, ["tiny"], NOW)
        with pytest.raises(SetupError, match="tier large has no price"):
            ensure_priced(session, ["tiny", "large"], NOW)


def test_a_new_version_starts_later_and_the_same_list_twice_writes_nothing(seeded):
    assert len(put(seeded, entry(7))) == 1
    assert put(seeded, entry(7)) == ()
    assert schedule(seeded, NOW) == [(140_000, 0), (7, LATER)]
    assert schedule(seeded, LATER - 1) == [(140_000, 0), (7, LATER)]
    assert schedule(seeded, LATER + SKEW_MS - 1) == [(140_000, 0), (7, LATER)]  # a clock behind ours still needs it
    assert schedule(seeded, LATER + SKEW_MS) == [(7, LATER)]


def test_without_a_start_gateways_have_time_to_learn_of_it(seeded):
    put(seeded, entry(7), start_ms=None)
    assert schedule(seeded, NOW)[1] == (7, NOW + LEAD_MS)


def test_a_tier_nobody_could_use_gets_its_first_price_at_once(database):
    put(database, entry(7), start_ms=None)
    assert schedule(database, NOW) == [(7, NOW)]
    assert schedule(database, NOW - 1) == []


def test_the_most_specific_scope_that_has_started_wins(seeded):
    own_ms, base_ms = LATER + HOUR_MS, LATER + 2 * HOUR_MS
    put(seeded, entry(10, plan="pro"), name="plan", start_ms=LATER)
    put(seeded, entry(20, organisation="o1"), name="own", start_ms=own_ms)
    put(seeded, entry(30), name="base", start_ms=base_ms)
    assert schedule(seeded, NOW) == [(140_000, 0), (10, LATER)]
    assert schedule(seeded, LATER + SKEW_MS) == [(10, LATER), (20, own_ms)]
    now_ms = own_ms + SKEW_MS
    assert schedule(seeded, now_ms) == [(20, own_ms)]  # what starts for others changes nothing
    assert schedule(seeded, now_ms, organisation="o2") == [(10, LATER)]
    assert schedule(seeded, now_ms, organisation="o2", plan="free") == [(140_000, 0), (30, base_ms)]
    assert schedule(seeded, now_ms, plan="") == [(20, own_ms)]


def test_whatever_a_clock_nearby_says_its_schedule_has_the_price_in_force(sqlite_database):
    """Against the plain definition, over random versions, up to some minutes apart."""
    chances = random.Random(4)
    made = {}
    with sqlite_database.unit_of_work() as session:
        for number in range(60):
            rank = number % 3
            start_ms = LATER + chances.randrange(120) * 60_000
            if (rank, start_ms) not in made:
                made[rank, start_ms] = number
                scope = [{}, {"plan": "pro"}, {"organisation": "o1"}][rank]
                apply_prices(
                    session, [entry(number, **scope)], name=f"v{number}", now_ms=NOW, tiers=["tiny"], start_ms=start_ms
                )

    def winner(at_ms):
        rank_start = max((each for each in made if each[1] <= at_ms), default=None)
        return None if rank_start is None else made[rank_start]

    pairs = 0
    for now_ms in range(LATER - HOUR_MS, LATER + 3 * HOUR_MS, 211_000):
        found = schedule(sqlite_database, now_ms)
        assert bool(found) == (winner(now_ms) is not None)
        for at_ms in (now_ms - SKEW_MS, now_ms - 1, now_ms, now_ms + 61_000, now_ms + KEPT_MS):
            picked = [each[0] for each in found if each[1] <= at_ms]
            assert not found or (picked or [None])[-1] == winner(at_ms)
            pairs += bool(found)
        later = [start for _, start in sorted(made, key=lambda each: each[1]) if start > now_ms]
        follows = next((start for start in later if winner(start) != winner(now_ms)), None)
        assert not found or follows is None or follows in {start for _, start in found}
    assert pairs > 200


@pytest.mark.parametrize("change", [update(PriceVersion).values(input_nano=0), delete(PriceVersion)])
def test_a_version_cannot_be_changed_or_deleted(seeded, change):
    with pytest.raises(IntegrityError, match="append-only"), seeded.unit_of_work() as session:
        session.execute(change)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"start_ms": NOW - 1}, VALIDATION),
        ({"start_ms": NOW + LEAD_MS - 1}, VALIDATION),
        ({"name": ""}, VALIDATION),
        ({"name": "x" * 25}, VALIDATION),
        ({"name": "launch"}, CONFLICT),
        ({"name": "other"}, CONFLICT),  # the same scope and start again
    ],
)
def test_what_cannot_be_applied_writes_nothing(seeded_sqlite, wrong, kind):
    seeded = seeded_sqlite
    put(seeded, entry(7))
    with pytest.raises(PlatformError) as caught:
        put(seeded, entry(8, organisation="o1"), entry(8), **wrong)
    assert caught.value.kind is kind
    with seeded.reading() as session:
        assert len(session.scalars(select(PriceVersion)).all()) == 2


def test_a_price_for_an_unknown_tier_is_a_mistake(seeded_sqlite):
    with pytest.raises(PlatformError, match="no tier tony"), seeded_sqlite.unit_of_work() as session:
        apply_prices(session, [PriceEntry(PriceScope("tony"), 1, 1, 1)], name="n", now_ms=NOW, tiers=["tiny"])


def test_a_list_is_read_exactly(tmp_path):
    file = tmp_path / "prices.toml"
    file.write_text(
        'version = "2026-11"\nstart = 2026-11-01T00:00:00+01:00\n'
        '[[prices]]\ntier = "tiny"\ninput = "0.14"\ncached = "0.000001"\noutput = "0.42"\nplan = "pro"\n'
    )
    found = read_price_file(file, NOW)
    assert found.start_ms == 1_793_487_600_000
    assert found.entries == (PriceEntry(PriceScope("tiny", plan="pro"), 140_000, 1, 420_000, 50),)


def test_the_tiers_of_a_configuration_are_a_list_too(tmp_path):
    file = tmp_path / "tramontane.toml"
    file.write_text(
        "[plans.development]\nrequests_per_minute = 1\ntokens_per_minute = 1\nconcurrency = 1\ncredit = 1\n"
        '[tiers.tiny]\nengine = "echo"\nweights = ""\ncontext_tokens = 9\nprice = { input = "0.2", output = "1" }\n'
    )
    found = read_price_file(file, NOW)
    assert (found.name, found.start_ms) == ("2023-11-14", None)
    assert found.entries == (PriceEntry(PriceScope("tiny"), 200_000, 200_000, 1_000_000),)


@pytest.mark.parametrize(
    "change",
    [
        {"start": "2026-11-01T00:00:00"},
        {"version": "a b"},
        {"prices": [{"tier": "tiny", "input": 0.14}]},
        {"prices": [{"tier": "tiny", "input": "-1"}]},
        {"prices": [{"tier": "tiny", "input": "NaN"}]},
        {"prices": [{"tier": "tiny", "input": "0.0000001"}]},
        {"prices": [{"tier": "tiny", "input": "1", "plan": "a", "organisation": "b"}]},
        {"prices": [{"tier": "tiny", "input": "1", "budget": "1"}]},
    ],
)
def test_a_list_that_is_wrong_is_refused(change):
    with pytest.raises(PlatformError) as caught:
        parse_price_list({"version": "v", "prices": [], **change})
    assert caught.value.kind is VALIDATION


def test_files_that_cannot_be_read_are_one_sentence(tmp_path):
    with pytest.raises(SetupError, match="cannot be read"):
        read_price_file(tmp_path / "none", NOW)
    (tmp_path / "bad").write_text("=")
    with pytest.raises(SetupError, match="not valid TOML"):
        read_price_file(tmp_path / "bad", NOW)
