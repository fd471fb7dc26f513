"""Limits in SQL: who may set which, and that nobody reaches those of another organisation."""

import pytest

from core.errors import CONFLICT, NOT_ALLOWED, NOT_FOUND, VALIDATION, PlatformError
from core.queue.rules import RuleKind
from gateway.accounts.generations import Generation, generation_of
from gateway.accounts.limits import (
    LIMITS_MAX,
    VALUE_MAX,
    LimitTerms,
    Subject,
    SubjectKind,
    list_limits,
    remove_limit,
    set_limit,
)
from gateway.accounts.trail import list_audit
from tests.accounts_world import TIERS, AccountsWorld

TEN = LimitTerms(RuleKind.CONCURRENCY, 10)


@pytest.fixture
def world(database):
    return AccountsWorld(database)


def put(world, subject, terms=TEN, within=None, known_tiers=TIERS):
    return world.do(set_limit, subject, terms, within=within, known_tiers=known_tiers, ids=world.ids)


def subjects(world):
    organisation = world.default.organisation
    return {
        SubjectKind.PLAN: Subject(SubjectKind.PLAN, "development"),
        SubjectKind.ORGANISATION: Subject(SubjectKind.ORGANISATION, organisation),
        SubjectKind.CUSTOMER: Subject(SubjectKind.CUSTOMER, organisation),
        SubjectKind.WORKSPACE: Subject(SubjectKind.WORKSPACE, world.default.workspace),
        SubjectKind.KEY: Subject(SubjectKind.KEY, world.key().id),
    }


def test_a_limit_is_set_changed_and_taken_away(world):
    subject = subjects(world)[SubjectKind.WORKSPACE]
    made, again = put(world, subject), put(world, subject)
    assert made == again
    changed = put(world, subject, LimitTerms(RuleKind.CONCURRENCY, 0))
    beside = [
        put(world, subject, LimitTerms(RuleKind.CONCURRENCY, 5, hard=False)),
        put(world, subject, LimitTerms(RuleKind.CONCURRENCY, 5, "mistral-tiny")),
        put(world, subject, LimitTerms(RuleKind.SPEND_PER_DAY, VALUE_MAX)),
    ]
    assert (made.id, len({made.id, *(one.id for one in beside)})) == (changed.id, 4)
    assert beside[-1].publish == (Generation(world.default.organisation, 6),)
    values = {limit.id: limit.value for limit in world.see(list_limits, subject, within=None)}
    assert values == {made.id: 0, beside[0].id: 5, beside[1].id: 5, beside[2].id: VALUE_MAX}
    world.do(remove_limit, made.id, within=None)
    assert made.id not in {limit.id for limit in world.see(list_limits, subject, within=None)}
    with pytest.raises(PlatformError) as caught:
        world.do(remove_limit, made.id, within=None)
    assert caught.value.kind is NOT_FOUND
    entries = world.see(list_audit, within=world.default.organisation)
    taken, *_, first, _key = entries
    assert (taken.action, taken.before["value"], taken.after) == ("limit.remove", 0, None)
    assert (first.action, first.before, first.after["value"]) == ("limit.set", None, 10)


def test_every_subject_can_have_limits_of_every_kind(world):
    for subject in subjects(world).values():
        before = len(world.see(list_limits, subject, within=None))
        for kind in RuleKind:
            put(world, subject, LimitTerms(kind, 1, "mistral-tiny"))
        assert len(world.see(list_limits, subject, within=None)) == before + len(RuleKind)


def test_a_customer_sets_what_is_his_and_not_what_the_operator_gave(world):
    organisation = world.default.organisation
    for kind, subject in subjects(world).items():
        if kind in {SubjectKind.PLAN, SubjectKind.ORGANISATION}:
            operators = put(world, subject, LimitTerms(RuleKind.SPEND_PER_MONTH, 1)).id
            for attempt in (
                lambda subject=subject: put(world, subject, within=organisation),
                lambda limit=operators: world.do(remove_limit, limit, within=organisation),
            ):
                with pytest.raises(PlatformError) as caught:
                    attempt()
                assert caught.value.kind is NOT_ALLOWED
            assert world.see(list_limits, subject, within=organisation)
        else:
            made = put(world, subject, within=organisation)
            world.do(remove_limit, made.id, within=organisation)


@pytest.mark.parametrize(
    ("terms", "kind"),
    [
        (LimitTerms(RuleKind.CONCURRENCY, -1), VALIDATION),
        (LimitTerms(RuleKind.CONCURRENCY, VALUE_MAX + 1), VALIDATION),
        (LimitTerms(RuleKind.CONCURRENCY, 1, "mistral-huge"), VALIDATION),
    ],
)
def test_a_limit_that_would_bound_nothing_is_refused(sqlite_database, terms, kind):
    world = AccountsWorld(sqlite_database)
    with pytest.raises(PlatformError) as caught:
        put(world, subjects(world)[SubjectKind.KEY], terms)
    assert caught.value.kind is kind


def test_the_limits_of_one_subject_are_bounded(world):
    subject = subjects(world)[SubjectKind.KEY]
    tiers = [f"tier-{number}" for number in range(LIMITS_MAX + 1)]
    for tier in tiers[:LIMITS_MAX]:
        put(world, subject, LimitTerms(RuleKind.CONCURRENCY, 1, tier), known_tiers=tiers)
    with pytest.raises(PlatformError) as caught:
        put(world, subject, LimitTerms(RuleKind.CONCURRENCY, 1, tiers[-1]), known_tiers=tiers)
    assert caught.value.kind is CONFLICT
    assert len(world.see(list_limits, subject, within=None)) == LIMITS_MAX
    put(world, subject, LimitTerms(RuleKind.CONCURRENCY, 2, tiers[0]), known_tiers=tiers)


def test_another_organisations_limits_do_not_exist(world):
    theirs = world.organisation("them")
    nobody = {kind: Subject(kind, "nothing") for kind in SubjectKind if kind is not SubjectKind.PLAN}
    before = world.see(generation_of, world.default.organisation).number
    for kind, subject in subjects(world).items():
        if kind is SubjectKind.PLAN:
            continue
        words = []
        for asked in (subject, nobody[kind]):
            for attempt in (
                lambda asked=asked: put(world, asked, within=theirs),
                lambda asked=asked: world.see(list_limits, asked, within=theirs),
            ):
                with pytest.raises(PlatformError) as caught:
                    attempt()
                words.append((caught.value.kind, caught.value.message.replace(asked.id, "ID")))
        assert len(set(words)) == 1
        assert words[0][0] is NOT_FOUND
    assert world.see(generation_of, world.default.organisation).number == before
    mine = put(world, subjects(world)[SubjectKind.KEY]).id
    for limit in (mine, "nothing"):
        with pytest.raises(PlatformError, match="There is no limit"):
            world.do(remove_limit, limit, within=theirs)
