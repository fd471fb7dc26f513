"""Plans in SQL: made, changed as a whole, compared with a file; prices that follow them."""

import pytest
from sqlalchemy import select

from billing.price_lists import PriceEntry, PriceFile, seed_prices
from billing.prices import PriceScope
from core.catalog import Catalog
from core.errors import NOT_FOUND, VALIDATION, PlatformError
from core.queue.rules import RuleKind
from gateway.accounts.generations import generation_of
from gateway.accounts.limits import LimitTerms, Subject, SubjectKind, list_limits
from gateway.accounts.models import AuditEntry
from gateway.accounts.organisations import change_plan
from gateway.accounts.plans import (
    PlanTerms,
    apply_plans,
    catalog_plans,
    find_plan,
    list_plans,
    plans_that_differ,
    put_plan,
)
from gateway.accounts.pricing import change_prices
from tests.accounts_world import PLAN, TIERS, AccountsWorld, catalog

LIMITS = (LimitTerms(RuleKind.CONCURRENCY, 7), LimitTerms(RuleKind.SPEND_PER_DAY, 10, "mistral-tiny", hard=False))
BUSINESS = PlanTerms("business", 5_000, 2, LIMITS)


@pytest.fixture
def world(database):
    return AccountsWorld(database)


def put(world, terms):
    return world.do(put_plan, terms, known_tiers=TIERS, ids=world.ids)


def acts(world, action):
    return world.see(lambda session: list(session.scalars(select(AuditEntry).where(AuditEntry.action == action))))


def generation(world, organisation):
    return world.see(generation_of, organisation).number


def test_a_plan_is_made_and_changed_as_a_whole(world):
    assert put(world, BUSINESS).publish == ()
    assert world.see(find_plan, "business") == BUSINESS
    kept = {
        limit.kind: limit.id for limit in world.see(list_limits, Subject(SubjectKind.PLAN, "business"), within=None)
    }
    world.do(change_plan, world.default.organisation, "business")
    before = generation(world, world.default.organisation)
    changed = PlanTerms("business", 0, 9, (LIMITS[0], LimitTerms(RuleKind.TOKENS_PER_MONTH, 3)))
    (told,) = put(world, changed).publish
    assert (told.organisation, told.number) == (world.default.organisation, before + 1)
    assert world.see(find_plan, "business") == PlanTerms(
        "business", 0, 9, (LimitTerms(RuleKind.TOKENS_PER_MONTH, 3), LIMITS[0])
    )
    now = {limit.kind: limit.id for limit in world.see(list_limits, Subject(SubjectKind.PLAN, "business"), within=None)}
    assert now["concurrency"] == kept["concurrency"]
    (made,), (change,) = acts(world, "plan.create"), acts(world, "plan.change")
    assert (made.before, made.after["credit_nano"], made.organisation) == (None, 5_000, "")
    assert (change.before["weight"], change.after["weight"]) == (2, 9)


def test_the_same_plan_again_changes_nothing(world):
    put(world, BUSINESS)
    world.do(change_plan, world.default.organisation, "business")
    before = generation(world, world.default.organisation)
    put(world, PlanTerms("business", 5_000, 2, LIMITS[::-1]))
    assert generation(world, world.default.organisation) == before
    assert acts(world, "plan.change") == []


@pytest.mark.parametrize(
    "terms",
    [
        PlanTerms(" ", 1, 1),
        PlanTerms("x", -1, 1),
        PlanTerms("x", 2**53, 1),
        PlanTerms("x", 1, 0),
        PlanTerms("x", 1, 1_001),
        PlanTerms("x", 1, 1, (LimitTerms(RuleKind.CONCURRENCY, -1),)),
        PlanTerms("x", 1, 1, (LimitTerms(RuleKind.CONCURRENCY, 2**53),)),
        PlanTerms("x", 1, 1, (LimitTerms(RuleKind.CONCURRENCY, 1, "unknown"),)),
        PlanTerms("x", 1, 1, (LimitTerms(RuleKind.CONCURRENCY, 1), LimitTerms(RuleKind.CONCURRENCY, 2))),
        PlanTerms("x", 1, 1, tuple(LimitTerms(RuleKind.CONCURRENCY, 1, str(number)) for number in range(65))),
    ],
)
def test_a_plan_that_cannot_be_is_refused(world, terms):
    with pytest.raises(PlatformError) as caught:
        put(world, terms)
    assert caught.value.kind is VALIDATION
    assert [plan.name for plan in world.see(list_plans)] == ["development"]


def test_a_plan_that_is_not_there_is_not_found(world):
    with pytest.raises(PlatformError) as caught:
        world.see(find_plan, "none")
    assert caught.value.kind is NOT_FOUND


def test_a_file_is_compared_and_applied_once(world):
    wanted = (*catalog_plans(catalog(concurrency=6)), BUSINESS)
    assert world.see(plans_that_differ, catalog_plans(catalog())) == ()
    seen = world.see(plans_that_differ, wanted)
    assert [(change.after.name, change.before is None) for change in seen] == [
        ("development", False),
        ("business", True),
    ]
    changes, raised = world.do(apply_plans, wanted, known_tiers=TIERS, ids=world.ids)
    assert changes == seen
    assert [each.organisation for each in raised] == [world.default.organisation]
    assert world.do(apply_plans, wanted, known_tiers=TIERS, ids=world.ids) == ((), ())
    put(world, PlanTerms("other", 1, 1))
    assert world.see(plans_that_differ, wanted) == ()
    assert [plan.name for plan in world.see(list_plans, offset=1, count=1)] == ["development"]


def test_prices_are_told_to_those_whom_they_concern(world):
    tier = {"name": "mistral-tiny", "engine": "echo", "weights": "", "context_tokens": 9, "price": {"input": "1"}}
    other = world.organisation("other")
    put(world, BUSINESS)
    world.do(change_plan, other, "business")
    with world.database.unit_of_work() as session:
        seed_prices(session, Catalog.model_validate({"plans": {"development": PLAN}, "tiers": [tier]}), world.clock)

    def change(name, **scope):
        entry = PriceEntry(PriceScope("mistral-tiny", **scope), 5, 5, 5)
        return world.do(change_prices, PriceFile(name, (entry,)), tiers=TIERS)

    assert {each.organisation for each in change("all")[1]} == {world.default.organisation, other}
    assert [each.organisation for each in change("plan", plan="business")[1]] == [other]
    assert [each.organisation for each in change("own", organisation=other)[1]] == [other]
    world.clock.advance(60_000)
    assert change("again") == ((), ())
    assert [act.organisation for act in acts(world, "price.apply")] == ["", "", other]
    for scope in ({"plan": "none"}, {"organisation": "none"}):
        with pytest.raises(PlatformError) as caught:
            change("lost", **scope)
        assert caught.value.kind is NOT_FOUND
