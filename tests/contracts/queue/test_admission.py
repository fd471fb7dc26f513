"""Admission is all or nothing: the order of its checks, the three kinds of rules, credit, the queue's bounds."""

import asyncio
from dataclasses import replace

from core.queue.base import (
    USAGE_BACKLOG_MAX,
    Admitted,
    Price,
    Refused,
    RefusedBy,
    RequestState,
    WorkerSlot,
)
from core.queue.rules import Rule, RuleKind
from core.wire import Usage
from tests.contracts.queue.world import NANO_PER_TOKEN, World

W1 = WorkerSlot("w1", "tiny", 8)
RPM = Rule(RuleKind.REQUESTS_PER_MINUTE, "workspace", "acme-main", 12)
TPM = Rule(RuleKind.TOKENS_PER_MINUTE, "workspace", "acme-main", 60_000)  # refills one token a millisecond
OPEN = Rule(RuleKind.CONCURRENCY, "key", "key1", 2)
# 10 prompt tokens at 1 nano each, 10 reserved output tokens at 2.
NEEDED_NANO = 30


async def test_an_admission_answers_with_what_it_reserved(world: World):
    await world.fund("acme", 1_000)
    job = world.job()
    answer = await world.try_admit(job, rules=(RPM, TPM, OPEN))
    assert isinstance(answer, Admitted)
    assert (answer.request_id, answer.admitted_ms) == (job.request_id, world.clock.now_ms())
    assert answer.cost_reserved_nano == NEEDED_NANO
    assert [state.rule for state in answer.rules] == [RPM, TPM, OPEN]
    assert [state.remaining for state in answer.rules] == [11, 60_000 - 20, 1]
    assert 0 < answer.rules[0].reset_ms <= 65_000
    assert answer.rules[1].reset_ms == 20
    assert await world.credit() == 1_000 - NEEDED_NANO
    standing = await world.gateway.standing(job.request_id)
    assert (standing.state, standing.attempt, standing.queue_position) == (RequestState.QUEUED, 1, 0)


async def test_the_first_check_that_fails_refuses_and_nothing_changes(world: World):
    """Everything is wrong at first; mended one by one, each refusal is the next in order."""
    await world.keeper.set_generation("acme", 7)
    for _ in range(3):
        await world.admit("other", tier="short")
    taken = (await world.take(WorkerSlot("w9", "short", 8)))[0]
    world.clock.advance(1_000)
    await world.finish(WorkerSlot("w9", "short", 8), taken)
    await world.admit("other", tier="short")
    job = world.job(tier="short")
    wrong = {"rules": (replace(TPM, limit=60), replace(OPEN, limit=0)), "queue_wait_ms_max": -1}

    async def refused_by(**changes: object) -> RefusedBy:
        before = await world.keeper.stats(["short"])
        answer = await world.try_admit(job, **{**wrong, **changes})
        assert isinstance(answer, Refused), answer
        assert await world.keeper.stats(["short"]) == before
        return answer.by

    assert await refused_by() is RefusedBy.STALE
    wrong["generation"] = 7
    assert await refused_by() is RefusedBy.QUEUE_FULL
    assert len(await world.take(WorkerSlot("w9", "short", 8))) == 1
    assert await refused_by() is RefusedBy.QUEUE_SLOW
    wrong["queue_wait_ms_max"] = 10**9
    assert await refused_by() is RefusedBy.RULE
    wrong["rules"] = (replace(TPM, limit=60),)
    assert await refused_by() is RefusedBy.CREDIT
    await world.fund("acme", NEEDED_NANO)
    answer = await world.try_admit(job, **wrong)
    assert isinstance(answer, Admitted)
    assert answer.rules[0].remaining == 40


async def test_an_older_generation_is_stale_a_newer_one_is_welcome(world: World):
    await world.fund("acme", 1_000)
    assert isinstance(await world.try_admit(world.job(), generation=1), Admitted), "none is set yet"
    for rising in (7, 6):
        await world.keeper.set_generation("acme", rising)
        assert await world.keeper.generations(["acme", "other"]) == {"acme": 7}
    answer = await world.try_admit(world.job(), generation=6)
    assert isinstance(answer, Refused)
    assert answer.by is RefusedBy.STALE
    for welcome in (7, 8):
        assert isinstance(await world.try_admit(world.job(), generation=welcome), Admitted)


async def test_usage_that_nobody_collects_refuses_rather_than_getting_lost(world: World):
    await world.fund("acme", 1_000)
    await world.fill_usage(USAGE_BACKLOG_MAX)
    assert isinstance(await world.try_admit(world.job()), Admitted)
    await world.fill_usage(1)
    answer = await world.try_admit(world.job())
    assert isinstance(answer, Refused)
    assert (answer.by, answer.refusal.rule) == (RefusedBy.BACKLOG, "usage_backlog")
    assert answer.refusal.retry_after_ms is not None


async def test_a_full_queue_refuses_until_a_job_leaves_it(world: World):
    for _ in range(3):
        await world.admit(tier="short")
    answer = await world.try_admit(world.job(tier="short"))
    assert isinstance(answer, Refused)
    assert answer.by is RefusedBy.QUEUE_FULL
    assert answer.refusal.limit == 3
    assert (answer.refusal.retry_after_ms or 0) >= 1_000
    await world.take(WorkerSlot("w1", "short", 8))
    await world.admit(tier="short")


async def test_a_hopeless_queue_refuses_with_its_estimate(world: World):
    """One slot, 20 units of cost each, 4 s each: five waiting jobs are about 20 s of work."""
    slot = WorkerSlot("w1", "open", 1)
    await world.fund()
    first = await world.try_admit(world.job(tier="open"), queue_wait_ms_max=0)
    assert isinstance(first, Admitted), "nothing is known before the first settlement"
    (job,) = await world.take(slot)
    world.clock.advance(4_000)
    await world.finish(slot, job, Usage(10, 10))
    for _ in range(5):
        await world.admit(tier="open")
    answer = await world.try_admit(world.job(tier="open"), queue_wait_ms_max=10_000)
    assert isinstance(answer, Refused)
    assert answer.by is RefusedBy.QUEUE_SLOW
    assert 15_000 <= (answer.refusal.retry_after_ms or 0) <= 25_000
    patient = await world.try_admit(world.job(tier="open"), queue_wait_ms_max=30_000)
    assert isinstance(patient, Admitted)
    assert 15_000 <= patient.queue_wait_ms <= 25_000


async def test_requests_per_minute_slide(world: World):
    await world.fund()
    for _ in range(12):
        assert isinstance(await world.try_admit(world.job(), rules=(RPM,)), Admitted)
    for _ in range(3):  # refused requests do not count
        refused = await world.try_admit(world.job(), rules=(RPM,))
        assert isinstance(refused, Refused)
        assert (refused.by, refused.refusal.rule, refused.refusal.scope) == (RefusedBy.RULE, RPM.kind, "workspace")
        assert (refused.refusal.limit, refused.refusal.remaining) == (12, 0)
    wait_ms = refused.refusal.retry_after_ms
    assert wait_ms is not None
    assert 50_000 < wait_ms <= 65_000
    world.clock.advance(wait_ms // 2)
    assert isinstance(await world.try_admit(world.job(), rules=(RPM,)), Refused)
    world.clock.advance(wait_ms - wait_ms // 2)
    assert isinstance(await world.try_admit(world.job(), rules=(RPM,)), Admitted), "when it was told to come back"
    other = replace(RPM, scope_id="other")
    assert isinstance(await world.try_admit(world.job(), rules=(other,)), Admitted)


async def test_requests_per_minute_never_exceed_the_limit_in_any_minute(world: World):
    await world.fund()
    admitted_ms = []
    for step in range(200):
        world.clock.advance(700 + 37 * (step % 11))
        if isinstance(await world.try_admit(world.job(), rules=(RPM,)), Admitted):
            admitted_ms.append(world.clock.now_ms())
    # The oldest sub-window leaves in proportion, not request by request: one sub-window's worth may be early.
    fullest = max(sum(start <= at < start + 60_000 for at in admitted_ms) for start in admitted_ms)
    assert 10 <= fullest <= 13


async def test_a_token_bucket_starts_full_and_refills_evenly(world: World):
    await world.fund()
    big = {"prompt_tokens": 39_990, "cost_expected": 40_000}
    assert isinstance(await world.try_admit(world.job(**big), rules=(TPM,)), Admitted)
    refused = await world.try_admit(world.job(**big), rules=(TPM,))
    assert isinstance(refused, Refused)
    assert (refused.refusal.rule, refused.refusal.remaining) == (TPM.kind, 20_000)
    assert refused.refusal.retry_after_ms == 20_000
    world.clock.advance(19_999)
    assert isinstance(await world.try_admit(world.job(**big), rules=(TPM,)), Refused)
    world.clock.advance(1)
    assert isinstance(await world.try_admit(world.job(**big), rules=(TPM,)), Admitted)


async def test_a_request_larger_than_the_bucket_passes_when_it_is_full_and_leaves_a_debt(world: World):
    await world.fund()
    huge = world.job(prompt_tokens=89_990)
    assert isinstance(await world.try_admit(huge, rules=(TPM,)), Admitted)
    refused = await world.try_admit(world.job(), rules=(TPM,))
    assert isinstance(refused, Refused)
    assert refused.refusal.retry_after_ms == 30_020, "30 000 of debt, and the 20 tokens of this one"


async def test_settling_corrects_the_bucket_in_both_directions(world: World):
    await world.fund()

    async def left_after(usage: Usage) -> int:
        assert isinstance(await world.try_admit(world.job(), rules=(TPM,), output_reserved=40_000), Admitted)
        (job,) = await world.take(W1)
        await world.finish(W1, job, usage)
        probe = await world.try_admit(world.job(prompt_tokens=60_000), rules=(TPM,))
        assert isinstance(probe, Refused)
        return probe.refusal.remaining

    assert await left_after(Usage(10, 990)) == 59_000
    assert await left_after(Usage(10, 49_990)) == 18_990, "40 000 were covered, no more is billed"


async def test_concurrency_counts_open_records(world: World):
    await world.fund()
    for _ in range(2):
        assert isinstance(await world.try_admit(world.job(), rules=(OPEN,)), Admitted)
    refused = await world.try_admit(world.job(), rules=(OPEN,))
    assert isinstance(refused, Refused)
    assert (refused.refusal.rule, refused.refusal.scope) == (OPEN.kind, "key")
    assert (refused.refusal.limit, refused.refusal.remaining, refused.refusal.retry_after_ms) == (2, 0, 1_000)
    (job,) = await world.take(W1)
    assert isinstance(await world.try_admit(world.job(), rules=(OPEN,)), Refused), "running counts"
    await world.finish(W1, job)
    assert isinstance(await world.try_admit(world.job(), rules=(OPEN,)), Admitted)
    assert await world.open_in_scope(OPEN) == 2


async def test_a_refusal_by_a_later_rule_takes_nothing_from_an_earlier_one(world: World):
    await world.fund()
    for _ in range(30):
        assert isinstance(await world.try_admit(world.job(), rules=(RPM, TPM, replace(OPEN, limit=0))), Refused)
    answer = await world.try_admit(world.job(), rules=(RPM, TPM, OPEN))
    assert isinstance(answer, Admitted)
    assert [state.remaining for state in answer.rules] == [11, 60_000 - 20, 1]


async def test_no_credit_no_admission_but_what_is_free_passes(world: World):
    answer = await world.try_admit(world.job())
    assert isinstance(answer, Refused)
    assert answer.by is RefusedBy.CREDIT
    assert (answer.refusal.limit, answer.refusal.remaining) == (NEEDED_NANO, 0)
    assert answer.refusal.retry_after_ms is None
    free = Price("free", 0, 0, 0)
    assert isinstance(await world.try_admit(world.job(), prices=(free,)), Admitted)
    (job,) = await world.take(W1)
    assert (await world.finish(W1, job)).end.cost_nano == 0


async def test_large_amounts_keep_every_digit(world: World):
    """Fifteen digits and more: what Lua's tostring would round."""
    await world.fund("acme", 2**52 - 1)
    price = Price("dear", 10**10 + 1, 10**10 + 1, 10**10 + 1)
    answer = await world.try_admit(world.job(prompt_tokens=100_000_001), prices=(price,))
    assert isinstance(answer, Admitted)
    assert answer.cost_reserved_nano == 1_000_000_110_100_000  # 1 000 000 110 100 000 011, divided by 1 000
    assert await world.credit() == 2**52 - 1 - 1_000_000_110_100_000


async def test_credit_of_1_00_admits_exactly_100_of_500_parallel_requests_of_0_01(world: World):
    await world.fund("acme", 10**9)
    cent = Price("cent", 10**6, 10**6, 10**6)  # 10 tokens cost 0.01 of the unit
    jobs = [world.job(prompt_tokens=10_000) for _ in range(500)]
    answers = await asyncio.gather(*(world.try_admit(job, prices=(cent,), output_reserved=0) for job in jobs))
    admitted = [answer for answer in answers if isinstance(answer, Admitted)]
    assert len(admitted) == 100
    assert all(answer.cost_reserved_nano == 10**7 for answer in admitted)
    assert await world.credit() == 0
    assert await world.open_reservations() == 100


async def test_the_price_is_pinned_at_admission(world: World):
    await world.fund("acme", 1_000)
    dearer = replace(NANO_PER_TOKEN, version="p2", output_nano=9_000)
    await world.try_admit(world.job(), prices=(NANO_PER_TOKEN,))
    await world.try_admit(world.job(), prices=(dearer,))
    old, new = await world.take(W1, 2)
    assert (await world.finish(W1, old)).end.cost_nano == 10 + 5 * 2
    assert (await world.finish(W1, new)).end.cost_nano == 10 + 5 * 9
    assert [event.price_version for event in await world.usage_events()] == ["p1", "p2"]
