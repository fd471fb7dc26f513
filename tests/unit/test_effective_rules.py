"""From limits to rules: which bound counts, in which order, whatever else is set."""

from hypothesis import given
from hypothesis import strategies as st

from core.queue.rules import CALENDAR, Rule, RuleKind, Window
from gateway.accounts.limits import SubjectKind
from gateway.accounts.rules import Bound, RuleIds, effective_rules

IDS = RuleIds("o", "w", "k")
SCOPE_OF = {
    SubjectKind.PLAN: "organisation",
    SubjectKind.ORGANISATION: "organisation",
    SubjectKind.CUSTOMER: "organisation",
    SubjectKind.WORKSPACE: "workspace",
    SubjectKind.KEY: "key",
}
ORDER = [
    "requests_per_second",
    "requests_per_minute",
    "tokens_per_minute",
    "tokens_per_month",
    "concurrency",
    "spend_per_day",
    "spend_per_month",
]


def spans(kind):
    return (Window(kind.value, 0, 1), Window(kind.value, 1, 2))


bounds_drawn = st.builds(
    Bound,
    subject=st.sampled_from(SubjectKind),
    kind=st.sampled_from(RuleKind),
    value=st.integers(0, 2**52),
    tier=st.sampled_from(["", "tiny", "small"]),
    hard=st.booleans(),
)
limit_sets = st.lists(bounds_drawn, unique_by=lambda bound: (bound.subject, bound.kind, bound.tier, bound.hard))


def place(bound):
    return SCOPE_OF[bound.subject], bound.kind, bound.tier, bound.hard


@given(limit_sets)
def test_each_place_has_one_rule_with_the_value_that_counts(bounds):
    by_place = {}
    for bound in bounds:
        by_place.setdefault(place(bound), {})[bound.subject] = bound.value
    rules = effective_rules(bounds, IDS, spans)
    assert len(rules) == len(by_place)
    for rule in rules:
        values = by_place[rule.scope, rule.kind, rule.tier, rule.hard]
        given_by_us = values.get(SubjectKind.ORGANISATION, values.get(SubjectKind.PLAN))
        own = values.get(SubjectKind.CUSTOMER, values.get(SubjectKind.WORKSPACE, values.get(SubjectKind.KEY)))
        assert rule.limit == min(value for value in (given_by_us, own) if value is not None)
        assert rule.scope_id == rule.scope[0]
        assert rule.windows == (spans(rule.kind) if rule.kind in CALENDAR else ())


@given(limit_sets, st.randoms(use_true_random=False))
def test_the_order_is_that_of_admission_whatever_order_sql_answers_in(bounds, random):
    rules = effective_rules(bounds, IDS, spans)
    places = [(ORDER.index(rule.kind), ["organisation", "workspace", "key"].index(rule.scope)) for rule in rules]
    assert places == sorted(places)
    shuffled = list(bounds)
    random.shuffle(shuffled)
    assert effective_rules(shuffled, IDS, spans) == rules


@given(limit_sets, bounds_drawn)
def test_what_a_customer_sets_never_loosens_anything(bounds, drawn):
    added = Bound(SubjectKind.CUSTOMER, drawn.kind, drawn.value, drawn.tier, drawn.hard)
    without = [bound for bound in bounds if bound.subject is not SubjectKind.CUSTOMER]
    before = {key_of(rule): rule.limit for rule in effective_rules(without, IDS, spans)}
    after = {key_of(rule): rule.limit for rule in effective_rules([*without, added], IDS, spans)}
    assert all(after[where] <= value for where, value in before.items())


@given(limit_sets, bounds_drawn)
def test_another_subject_of_the_same_kind_of_scope_touches_nothing_else(bounds, drawn):
    before = set(effective_rules(bounds, IDS, spans))
    after = set(effective_rules([*(b for b in bounds if place(b) != place(drawn)), drawn], IDS, spans))
    assert {key_of(rule) for rule in before ^ after} <= {place(drawn)}


def test_every_kind_has_its_place_in_the_order():
    rules = effective_rules([Bound(SubjectKind.KEY, kind, 1) for kind in RuleKind], IDS, spans)
    assert [rule.kind.value for rule in rules] == ORDER


def test_a_soft_limit_stands_beside_a_hard_one():
    kind = RuleKind.SPEND_PER_MONTH
    both = [Bound(SubjectKind.PLAN, kind, 10), Bound(SubjectKind.CUSTOMER, kind, 8, hard=False)]
    assert effective_rules(both, IDS, lambda _: ()) == (
        Rule(kind, "organisation", "o", 10),
        Rule(kind, "organisation", "o", 8, hard=False),
    )


def key_of(rule):
    return rule.scope, rule.kind, rule.tier, rule.hard
