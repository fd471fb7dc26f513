"""Extensions: the next slice of output, to the exact token, by credit, spending caps and monthly tokens."""

import asyncio
from dataclasses import replace

import pytest

from core.meter.credit import Hunger, Level
from core.queue.base import Extended, Extension, Outcome, Price, WorkerSlot
from core.queue.rules import Rule, RuleKind, Window
from core.wire import Job, Usage
from tests.contracts.queue.world import RICH_NANO, START_MS, World

W1 = WorkerSlot("w1", "tiny", 8)
MONTH = Window("2023-11", START_MS - 10**9, START_MS + 10**9)
SPEND = Rule(RuleKind.SPEND_PER_MONTH, "organisation", "acme", 130, windows=(MONTH,))
DAY = replace(SPEND, kind=RuleKind.SPEND_PER_DAY)
TOKENS = Rule(RuleKind.TOKENS_PER_MONTH, "workspace", "acme-main", 70, windows=(MONTH,))
TPM = Rule(RuleKind.TOKENS_PER_MINUTE, "workspace", "acme-main", 60)
# A job has 10 prompt tokens at 1 nano each and covers 10 output tokens at 2: 30 nano are reserved.


async def running(world: World, credit_nano: int = RICH_NANO, **changes: object) -> Job:
    await world.fund("acme", credit_nano)
    for rule in changes.get("rules", ()):
        if rule.windows:
            await world.counters.seed(rule, MONTH, 0)
    await world.must_admit(world.job(), **changes)
    (job,) = await world.take(W1)
    return job


async def extend(world: World, job: Job, output_tokens: int, slot: WorkerSlot = W1) -> Extended:
    (answer,) = await world.workers.extend([Extension(job.request_id, job.attempt, slot.worker_id, output_tokens)])
    return answer


async def test_it_reserves_what_it_covers_and_the_end_gives_the_rest_back(world: World):
    job = await running(world, 1_000)
    assert await extend(world, job, 50) == Extended(True, 50)
    assert await world.funds.level("acme") == Level(1, 1_000 - 110, 110)
    settlement = await world.finish(W1, job, Usage(10, 41))
    assert (settlement.end.usage.completion_tokens, settlement.end.cost_nano) == (41, 92)
    assert await world.funds.level("acme") == Level(1, 1_000 - 92, 0)


async def test_it_is_a_total_so_repeating_it_takes_nothing(world: World):
    job = await running(world, 1_000)
    for wanted, covered in ((50, 50), (50, 50), (20, 50), (51, 51)):
        assert await extend(world, job, wanted) == Extended(True, covered)
    assert await world.funds.level("acme") == Level(1, 1_000 - 112, 112)


async def test_many_are_answered_in_their_order(world: World):
    await world.fund("acme", 200)
    jobs = [await world.admit() for _ in range(3)]
    await world.take(W1, 3)
    wishes = [Extension(job.request_id, 1, "w1", 40) for job in jobs]
    assert await world.workers.extend(wishes) == [
        Extended(True, 40),
        Extended(True, 35, "credit"),
        Extended(True, 10, "credit"),
    ]
    assert await world.funds.level("acme") == Level(1, 0, 200)


async def test_credit_covers_to_the_exact_token(world: World):
    job = await running(world, 101)
    assert await extend(world, job, 1_000) == Extended(True, 45, "credit"), "71 left: 35 more tokens"
    assert await world.funds.level("acme") == Level(1, 1, 100)
    settlement = await world.finish(W1, job, Usage(10, 60))
    assert (settlement.end.usage.completion_tokens, settlement.end.cost_nano) == (45, 100), "never more than covered"
    assert await world.funds.level("acme") == Level(1, 1, 0)


@pytest.mark.parametrize("output_nano", [1, 333, 999, 1_500, 7_001])
async def test_rounding_never_covers_a_token_that_is_not_paid_for(world: World, output_nano: int):
    price = Price("odd", 777, 77, output_nano)
    job = await running(world, 5_000, prices=(price,))
    answer = await extend(world, job, 10**6)
    level = await world.funds.level("acme")
    assert level.available_nano >= 0
    assert await extend(world, job, answer.covered_tokens + 1) in (
        Extended(True, answer.covered_tokens, "credit"),
        Extended(True, 10**6),
        Extended(True, answer.covered_tokens + 1),
    )
    if answer.refused_by:
        more = (777 * 10 + output_nano * (answer.covered_tokens + 1)) / 1_000
        assert more > 5_000 - 0.5
    assert (await world.finish(W1, job, Usage(10, answer.covered_tokens))).end.cost_nano <= 5_000


async def test_who_is_refused_is_hungry_once_and_may_be_fed(world: World):
    job = await running(world, 50)
    assert await extend(world, job, 100) == Extended(True, 20, "credit")
    assert await extend(world, job, 100) == Extended(True, 20, "credit")
    assert await world.funds.hungry(0.01) == [Hunger("acme", 160)]
    assert await world.funds.hungry(0.01) == []
    assert await world.funds.give("block", "acme", 1, 160)
    assert await extend(world, job, 100) == Extended(True, 100)
    assert await world.funds.level("acme") == Level(1, 0, 210)
    assert await world.funds.hungry(0.01) == []


async def test_of_several_wishes_the_largest_is_told(world: World):
    await world.fund("acme", 60)
    await world.fund("other", 30)
    for name in ("acme", "acme", "other"):
        await world.must_admit(world.job(name))
    jobs = await world.take(W1, 3)
    wanted = [30, 50, 20]
    for job, tokens in zip(sorted(jobs, key=lambda each: each.request_id), wanted, strict=True):
        await extend(world, job, tokens)
    assert sorted(await world.funds.hungry(0.01), key=lambda each: each.organisation) == [
        Hunger("acme", 80),
        Hunger("other", 20),
    ]


async def test_a_waiting_lender_wakes_up(world: World):
    job = await running(world, 30)
    waiting = asyncio.create_task(world.funds.hungry(0.9))
    await asyncio.sleep(0.01)
    await extend(world, job, 20)
    heard = await waiting
    while not heard:  # an implementation may look up earlier than asked
        heard = await world.funds.hungry(0.9)
    assert heard == [Hunger("acme", 20)]


@pytest.mark.parametrize("rule", [SPEND, DAY], ids=lambda rule: rule.kind.value)
async def test_a_hard_cap_covers_to_the_exact_token_and_nobody_is_hungry(world: World, rule: Rule):
    job = await running(world, rules=(rule,))
    assert await extend(world, job, 1_000) == Extended(True, 60, rule.kind.value)
    (state,) = await world.counters.states([rule])
    assert state.remaining == 0
    assert await world.funds.hungry(0.01) == []
    await world.finish(W1, job, Usage(10, 20))
    (state,) = await world.counters.states([rule])
    assert state.remaining == 130 - 50


async def test_monthly_tokens_bound_it_too(world: World):
    job = await running(world, rules=(TOKENS,))
    assert await extend(world, job, 1_000) == Extended(True, 60, "tokens_per_month")
    assert (await world.counters.states([TOKENS]))[0].remaining == 0
    assert await world.funds.level("acme") == Level(1, RICH_NANO - 130, 130)


@pytest.mark.parametrize(
    ("credit_nano", "spend", "tokens", "covered", "by"),
    [
        (90, 130, 70, 40, "credit"),
        (200, 90, 70, 40, "spend_per_month"),
        (200, 130, 50, 40, "tokens_per_month"),
        (90, 90, 70, 40, "credit"),
    ],
)
async def test_the_tightest_bound_is_named(
    world: World, credit_nano: int, spend: int, tokens: int, covered: int, by: str
):
    rules = (replace(SPEND, limit=spend), replace(TOKENS, limit=tokens))
    job = await running(world, credit_nano, rules=rules)
    assert await extend(world, job, 1_000) == Extended(True, covered, by)


async def test_soft_caps_count_and_bound_nothing(world: World):
    soft = tuple(replace(rule, hard=False) for rule in (SPEND, TOKENS))
    job = await running(world, rules=soft)
    assert await extend(world, job, 1_000) == Extended(True, 1_000)
    assert [state.remaining for state in await world.counters.states(soft)] == [130 - 2_010, 70 - 1_010]


async def test_tokens_per_minute_go_below_zero_and_the_next_admission_waits(world: World):
    job = await running(world, rules=(TPM,))
    assert await extend(world, job, 1_000) == Extended(True, 1_000)
    assert (await world.counters.states([TPM]))[0].remaining == 60 - 1_010
    refused = await world.must_refuse(world.job(), rules=(TPM,))
    assert (refused.refusal.remaining, refused.refusal.retry_after_ms) == (0, 970_000)
    await world.finish(W1, job, Usage(10, 30))
    assert (await world.counters.states([TPM]))[0].remaining == 20


async def test_only_the_attempt_that_runs_may_extend(world: World):
    job = await running(world, 1_000)
    stale = Extended(accepted=False, covered_tokens=0)
    assert await extend(world, replace(job, attempt=2), 50) == stale
    assert await extend(world, job, 50, WorkerSlot("w2", "tiny", 8)) == stale
    assert await extend(world, replace(job, request_id="c0" + "f" * 30), 50) == stale
    await world.finish(W1, job)
    assert await extend(world, job, 50) == stale
    assert await world.funds.level("acme") == Level(1, 980, 0)


async def test_a_queued_request_covers_no_more(world: World):
    job = await world.admit()
    assert not (await extend(world, job, 50)).accepted


async def test_what_is_covered_stays_covered_for_the_next_attempt(world: World):
    job = await running(world, 1_000)
    await extend(world, job, 50)
    assert await world.lose() == 1
    await world.gateway.retry(job.request_id, 1)
    (again,) = await world.take(W1)
    assert again.attempt == 2
    assert await extend(world, again, 40) == Extended(True, 50)
    assert await extend(world, again, 60) == Extended(True, 60)
    assert (await world.finish(W1, again, Usage(10, 55))).end.cost_nano == 120
    assert await world.funds.level("acme") == Level(1, 880, 0)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.GATEWAY_LOST, Outcome.TIMEOUT])
async def test_what_is_not_billed_gives_all_slices_back(world: World, outcome: Outcome):
    rules = (replace(SPEND, limit=1_000), replace(TOKENS, limit=1_000), replace(TPM, limit=1_000))
    job = await running(world, 1_000, rules=rules)
    await extend(world, job, 100)
    await world.finish(W1, job, Usage(10, 77), outcome)
    assert await world.funds.level("acme") == Level(1, 1_000, 0)
    assert [state.remaining for state in await world.counters.states(rules)] == [1_000] * 3


async def test_while_no_epoch_is_open_nothing_more_is_covered(world: World):
    job = await running(world, 1_000)
    await world.restart()
    assert await extend(world, job, 50) == Extended(True, 10, "epoch")
    assert await extend(world, job, 10) == Extended(True, 10)


async def test_a_request_of_an_older_epoch_moves_into_the_open_one_as_a_whole(world: World):
    rules = (replace(SPEND, limit=1_000),)
    job = await running(world, 1_000, rules=rules)
    assert await world.funds.open_epoch(2)
    assert await extend(world, job, 50) == Extended(True, 10, "credit")
    assert await world.funds.hungry(0.01) == [Hunger("acme", 110)]
    assert await world.funds.give("block", "acme", 2, 150)
    await world.counters.seed(SPEND, MONTH, 500)
    assert await extend(world, job, 50) == Extended(True, 50)
    assert await world.funds.level("acme") == Level(2, 40, 110)
    assert (await world.counters.states(rules))[0].remaining == 500, "what it uses is added at its end"
    assert (await world.finish(W1, job, Usage(10, 45))).end.cost_nano == 100
    assert await world.funds.level("acme") == Level(2, 50, 0)
    assert (await world.counters.states(rules))[0].remaining == 400
    assert [event.epoch for event in await world.usage_events()] == [2]
