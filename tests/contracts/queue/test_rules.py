"""Every kind of limit: what it refuses and how it says so, soft ones, calendars, what rules share."""

import asyncio
from dataclasses import replace

import pytest

from core.queue.base import Admitted, Outcome, RefusedBy, WorkerSlot
from core.queue.rules import Rule, RuleKind, RuleState, Window
from core.wire import Usage
from tests.contracts.queue.world import START_MS, World

W1 = WorkerSlot("w1", "tiny", 8)
DAY_MS = 86_400_000
TODAY = Window("2023-11-14", START_MS - 3_600_000, START_MS + 7_200_000)
TOMORROW = Window("2023-11-15", TODAY.end_ms, TODAY.end_ms + DAY_MS)
PER_SECOND = Rule(RuleKind.REQUESTS_PER_SECOND, "key", "key1", 3)
PER_MINUTE = Rule(RuleKind.REQUESTS_PER_MINUTE, "workspace", "acme-main", 3)
TPM = Rule(RuleKind.TOKENS_PER_MINUTE, "workspace", "acme-main", 60)
OPEN = Rule(RuleKind.CONCURRENCY, "organisation", "acme", 3)
TOKENS = Rule(RuleKind.TOKENS_PER_MONTH, "organisation", "acme", 60, windows=(TODAY, TOMORROW))
SPEND = Rule(RuleKind.SPEND_PER_DAY, "key", "key1", 90, windows=(TODAY, TOMORROW))
SPEND_MONTH = replace(SPEND, kind=RuleKind.SPEND_PER_MONTH)
ALL = (PER_SECOND, PER_MINUTE, TPM, OPEN, TOKENS, SPEND, SPEND_MONTH)
# Each lets three requests of 10 + 10 tokens pass, which cost 10 * 1 + 10 * 2 = 30.


async def seed(world: World, *rules: Rule, used: int = 0) -> None:
    for rule in rules:
        for window in rule.windows:
            await world.counters.seed(rule, window, used)


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.kind.value)
async def test_each_kind_refuses_the_fourth_and_says_why(world: World, rule: Rule):
    await world.fund()
    await seed(world, rule)
    tier = replace(rule, tier="tiny")
    await seed(world, tier)
    states = [(await world.must_admit(world.job(), rules=(tier,))).rules[0] for _ in range(3)]
    step = rule.limit // 3
    assert states == [RuleState(tier, rule.limit - step * used, states[used - 1].reset_ms) for used in (1, 2, 3)]
    refused = await world.must_refuse(world.job(), rules=(tier,))
    assert (refused.by, refused.rule) == (RefusedBy.RULE, tier)
    told = refused.refusal
    assert (told.rule, told.scope, told.tier, told.limit, told.remaining) == (
        *(rule.kind.value, rule.scope, "tiny", rule.limit),
        0,
    )
    retry_ms = {
        RuleKind.REQUESTS_PER_SECOND: range(900, 1_100),
        RuleKind.REQUESTS_PER_MINUTE: range(55_000, 66_000),
        RuleKind.TOKENS_PER_MINUTE: [20_000],
        RuleKind.CONCURRENCY: [1_000],
        RuleKind.TOKENS_PER_MONTH: [TODAY.end_ms - START_MS],
    }.get(rule.kind, [None])
    assert told.retry_after_ms in retry_ms
    await world.must_admit(world.job(), rules=(rule,))  # without a tier it is another counter


@pytest.mark.parametrize("rule", [PER_SECOND, PER_MINUTE, TPM, TOKENS], ids=lambda rule: rule.kind.value)
async def test_who_comes_back_when_told_is_admitted(world: World, rule: Rule):
    await world.fund()
    await seed(world, rule)
    for _ in range(3):
        await world.must_admit(world.job(), rules=(rule,))
    wait_ms = (await world.must_refuse(world.job(), rules=(rule,))).refusal.retry_after_ms
    assert wait_ms is not None
    world.clock.advance(wait_ms - 1)
    await world.must_refuse(world.job(), rules=(rule,))
    world.clock.advance(1)
    await world.must_admit(world.job(), rules=(rule,))


async def test_requests_per_second_slide(world: World):
    """One request every 100 ms, five seconds long, where three in any second may pass."""
    await world.fund()
    admitted_ms = []
    for _ in range(50):
        if isinstance(await world.try_admit(world.job(), rules=(PER_SECOND,)), Admitted):
            admitted_ms.append(world.clock.now_ms())
        world.clock.advance(100)
    fullest = max(sum(start <= at < start + 1_000 for at in admitted_ms) for start in admitted_ms)
    assert fullest == 3
    assert len(admitted_ms) >= 13


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.kind.value)
async def test_a_soft_rule_refuses_nothing_and_tells_how_far_it_is(world: World, rule: Rule):
    await world.fund()
    soft = replace(rule, hard=False)
    await seed(world, soft)
    for _ in range(5):
        answer = await world.must_admit(world.job(), rules=(soft,))
    assert answer.rules[0].remaining == -2 * rule.limit // 3


async def test_a_soft_and_a_hard_rule_share_what_they_count(world: World):
    await world.fund()
    for rule in (PER_SECOND, PER_MINUTE, OPEN, TOKENS, SPEND, SPEND_MONTH):
        rules = (replace(rule, hard=False, limit=rule.limit // 3), rule)
        await seed(world, rule)
        for used in (1, 2, 3):
            answer = await world.must_admit(world.job(), rules=rules)
            left = [state.remaining for state in answer.rules]
            assert left == [rule.limit * (1 - used) // 3, rule.limit * (3 - used) // 3]
        assert (await world.must_refuse(world.job(), rules=rules)).rule == rule


@pytest.mark.parametrize("rule", [TOKENS, SPEND, SPEND_MONTH], ids=lambda rule: rule.kind.value)
async def test_a_calendar_rule_that_is_not_counted_asks_to_be_seeded(world: World, rule: Rule):
    await world.fund()
    for asked in (rule, replace(rule, hard=False)):
        refused = await world.must_refuse(world.job(), rules=(OPEN, asked))
        assert (refused.by, refused.rule, refused.refusal.rule) == (RefusedBy.UNSEEDED, asked, rule.kind.value)
    assert await world.open_in_scope(OPEN) == 0
    assert await world.counters.states([rule]) == [RuleState(rule, rule.limit, TODAY.end_ms - START_MS)]
    await world.counters.seed(rule, TODAY, rule.limit // 3)
    await world.counters.seed(rule, TODAY, 0)  # too late: it is counted here already
    answer = await world.must_admit(world.job(), rules=(rule,))
    assert answer.rules[0] == RuleState(rule, rule.limit // 3, TODAY.end_ms - START_MS)
    world.clock.advance(answer.rules[0].reset_ms)
    assert (await world.must_refuse(world.job(), rules=(rule,))).by is RefusedBy.UNSEEDED, "the next window"
    await world.counters.seed(rule, TOMORROW, 0)
    answer = await world.must_admit(world.job(), rules=(rule,))
    assert answer.rules[0] == RuleState(rule, 2 * rule.limit // 3, DAY_MS)


async def test_a_calendar_counts_what_was_used_in_the_window_of_admission(world: World):
    await world.fund()
    await seed(world, TOKENS, SPEND)
    await world.must_admit(world.job(), rules=(TOKENS, SPEND))
    (job,) = await world.take(W1)
    world.clock.advance(TODAY.end_ms - START_MS - 1)
    await world.pass_time(0, W1)
    await world.must_admit(world.job(), rules=(TOKENS, SPEND))
    world.clock.advance(1)
    assert (await world.finish(W1, job, Usage(10, 1))).end.cost_nano == 12
    assert [state.remaining for state in await world.counters.states([TOKENS, SPEND])] == [60, 90], "of tomorrow"
    yesterday = [replace(rule, windows=(replace(TODAY, end_ms=TOMORROW.end_ms),)) for rule in (TOKENS, SPEND)]
    left = [state.remaining for state in await world.counters.states(yesterday)]
    assert left == [60 - 20 - 11, 90 - 30 - 12]


async def test_what_costs_nothing_passes_a_spent_cap(world: World):
    await seed(world, SPEND, used=500)
    free = replace(world.admission(world.job()).prices[0], input_nano=0, output_nano=0)
    answer = await world.must_admit(world.job(), prices=(free,), rules=(SPEND,))
    assert answer.credit_left_nano == -1


async def test_a_principal_without_a_window_for_now_is_old(world: World):
    await world.fund()
    await seed(world, SPEND)
    world.clock.advance(TOMORROW.end_ms - START_MS)
    refused = await world.must_refuse(world.job(), rules=(OPEN, SPEND))
    assert (refused.by, refused.refusal.rule, refused.refusal.scope) == (RefusedBy.STALE, "spend_per_day", "key")


async def test_states_tell_without_a_request_what_an_admission_would(world: World):
    await world.fund()
    await seed(world, TOKENS, SPEND, SPEND_MONTH)
    assert [state.remaining for state in await world.counters.states(ALL)] == [rule.limit for rule in ALL]
    roomy = tuple(replace(rule, limit=10 * rule.limit) for rule in ALL)
    answer = await world.must_admit(world.job(), rules=roomy)
    assert tuple(await world.counters.states(roomy)) == answer.rules
    (job,) = await world.take(W1)
    await world.finish(W1, job, outcome=Outcome.FAILED)
    used = [state.rule.limit - state.remaining for state in await world.counters.states(roomy)]
    assert used == [1, 1, 0, 0, 0, 0, 0]


async def test_parallel_admissions_pass_a_cap_to_the_last_nano(world: World):
    await world.fund()
    rules = (replace(SPEND, limit=30 * 25), replace(TOKENS, limit=20 * 40))
    await seed(world, *rules)
    answers = await asyncio.gather(*(world.try_admit(world.job(), rules=rules) for _ in range(100)))
    assert sum(isinstance(answer, Admitted) for answer in answers) == 25
    assert [state.remaining for state in await world.counters.states(rules)] == [0, 20 * 15]


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.kind.value)
async def test_a_hard_limit_that_was_lowered_has_nothing_left_and_no_less(world: World, rule: Rule):
    await world.fund()
    await seed(world, rule)
    for _ in range(3):
        await world.must_admit(world.job(), rules=(rule,))
    lowered = replace(rule, limit=rule.limit // 3)
    (state,) = await world.counters.states([lowered])
    assert state.remaining <= 0 if rule is TPM else state.remaining == 0
    assert (await world.must_refuse(world.job(), rules=(lowered,))).refusal.remaining == 0
