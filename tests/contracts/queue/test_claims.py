"""Idempotency-Keys: one run for many callers, what is remembered, and who pays for an answer that is fetched late."""

import asyncio
from dataclasses import replace

import pytest

from core.meter.credit import Level
from core.queue.base import (
    CLAIM_KEPT_MS,
    Admitted,
    Claim,
    Finish,
    Outcome,
    RefusedBy,
    Repeated,
    RequestState,
    Settlement,
    WorkerSlot,
)
from core.queue.rules import Rule, RuleKind, Window
from core.wire import EMBED, Answer, End, Job, Usage
from tests.contracts.queue.world import RICH_NANO, START_MS, World

W1 = WorkerSlot("w1", "tiny", 8)
CLAIM = Claim("workspace-route-key", "body")
OTHER_BODY = replace(CLAIM, digest="another body")
ANSWERS = (Answer("It is.", (1, 2, 3), ((-0.5, ((1, -0.5),)),) * 3),)
MONTH = Window("2023-11", START_MS - 10**9, START_MS + 10**9)
SPEND = Rule(RuleKind.SPEND_PER_MONTH, "organisation", "acme", 1_000, windows=(MONTH,))
TOKENS = Rule(RuleKind.TOKENS_PER_MONTH, "workspace", "acme-main", 1_000, windows=(MONTH,))
OPEN = Rule(RuleKind.CONCURRENCY, "key", "key1", 2)


async def ask(world: World, claim: Claim | None = CLAIM, **changes: object) -> object:
    return await world.try_admit(world.job(keep_answer=True), claim=claim, **changes)


async def running(world: World, **changes: object) -> Job:
    await world.fund()
    assert isinstance(await ask(world, **changes), Admitted)
    (job,) = await world.take(W1)
    return job


async def end(world: World, job: Job, outcome: Outcome, completion_tokens: int = 5, **changes: object) -> Settlement:
    ended = replace(
        End(job.request_id, job.attempt, ("stop",), Usage(10, completion_tokens), answers=ANSWERS), **changes
    )
    (settlement,) = await world.workers.finish([Finish(ended, "w1", outcome, keep_answer=True)])
    return settlement


async def test_of_100_in_parallel_one_runs_and_99_are_told_which(world: World):
    await world.fund("acme", 1_000)
    answers = await asyncio.gather(*(ask(world) for _ in range(100)))
    (admitted,) = [answer for answer in answers if isinstance(answer, Admitted)]
    repeated = [answer for answer in answers if isinstance(answer, Repeated)]
    assert repeated == [Repeated(admitted.request_id, same_body=True, streamed=False)] * 99
    assert await world.open_reservations() == 1
    assert await world.funds.level("acme") == Level(1, 970, 30)
    (job,) = await world.take(W1, 8)
    await end(world, job, Outcome.FINISHED)
    assert await ask(world) == repeated[0]
    assert len(await world.usage_events()) == 1
    assert await world.funds.level("acme") == Level(1, 980, 0)


async def test_another_body_and_a_stream_are_told_apart(world: World):
    await world.fund()
    job = world.job(streamed=True)
    await world.must_admit(job, claim=CLAIM)
    assert await ask(world, OTHER_BODY) == Repeated(job.request_id, same_body=False, streamed=True)
    assert isinstance(await ask(world, Claim("another key", "body")), Admitted)
    assert isinstance(await ask(world, None), Admitted)
    assert await ask(world) == Repeated(job.request_id, same_body=True, streamed=True)


async def test_a_repetition_is_told_whatever_refuses_others_but_not_to_a_stale_caller(world: World):
    await world.fund("acme", 30)
    answer = await ask(world)
    assert isinstance(answer, Admitted)
    rules = (replace(OPEN, limit=0), SPEND)
    assert await ask(world, rules=rules, queue_wait_ms_max=-1) == Repeated(answer.request_id, True, False)
    await world.restart()
    assert await ask(world, rules=rules) == Repeated(answer.request_id, True, False)
    await world.keeper.set_generation("acme", 7)
    refused = await world.must_refuse(world.job(), claim=CLAIM)
    assert refused.by is RefusedBy.STALE


async def test_what_is_refused_claims_nothing(world: World):
    assert (await world.must_refuse(world.job(), claim=CLAIM)).by is RefusedBy.CREDIT
    await world.fund()
    assert (await world.must_refuse(world.job(), claim=CLAIM, rules=(replace(OPEN, limit=0),))).by is RefusedBy.RULE
    assert isinstance(await ask(world), Admitted)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMEOUT, Outcome.CANCELLED])
async def test_what_a_repetition_may_cure_runs_anew(world: World, outcome: Outcome):
    job = await running(world)
    if outcome is Outcome.CANCELLED:
        await world.gateway.cancel(job.request_id, 3)
    assert isinstance(await ask(world), Repeated), "it still runs"
    await end(world, job, outcome)
    again = await ask(world)
    assert isinstance(again, Admitted)
    assert again.request_id != job.request_id


async def test_a_claim_is_freed_when_it_ends_without_a_worker(world: World):
    await world.fund()
    answer = await ask(world)
    assert isinstance(answer, Admitted)
    await world.gateway.cancel(answer.request_id, 0)
    again = await ask(world)
    assert isinstance(again, Admitted)
    world.clock.advance(900_000)
    await world.keeper.reap()
    world.clock.advance(1_000)
    await world.keeper.reap()
    assert isinstance(await ask(world), Admitted), "past its deadline"


async def test_a_cancelled_answer_is_no_answer_even_if_its_gateway_is_gone(world: World):
    job = await running(world)
    await world.gateway.cancel(job.request_id, 3)
    await end(world, job, Outcome.GATEWAY_LOST)
    assert isinstance(await ask(world), Admitted)


async def test_the_kept_end_holds_the_answer_and_what_is_sent_does_not(world: World):
    job = await running(world)
    settlement = await end(world, job, Outcome.FINISHED)
    assert (settlement.end.answers, settlement.end.cost_nano) == ((), 20)
    kept = (await world.gateway.standing(job.request_id)).end
    assert kept == replace(settlement.end, answers=ANSWERS)


async def test_a_large_answer_is_kept_too(world: World):
    job = await running(world)
    large = (Answer("word " * 100_000),)
    await end(world, job, Outcome.FINISHED, answers=large)
    kept = (await world.gateway.standing(job.request_id)).end
    assert kept is not None
    assert kept.answers == large


async def test_the_claim_outlives_the_answer_and_ends_after_a_day(world: World):
    job = await running(world)
    await end(world, job, Outcome.FINISHED)
    await world.forget(601_000)
    assert await ask(world) == Repeated(job.request_id, True, False)
    assert (await world.gateway.standing(job.request_id)).state is RequestState.UNKNOWN
    await world.forget(CLAIM_KEPT_MS)
    assert isinstance(await ask(world), Admitted)


async def lost_gateway(world: World, **changes: object) -> Job:
    job = await running(world, **changes)
    settlement = await end(world, job, Outcome.GATEWAY_LOST)
    assert (settlement.accepted, settlement.end.cost_nano, settlement.end.usage) == (True, 0, Usage())
    assert await world.credit() == RICH_NANO
    return job


async def test_an_answer_that_outlived_its_gateway_is_paid_by_who_fetches_it_once(world: World):
    await world.fund()
    for rule in (SPEND, TOKENS):
        await world.counters.seed(rule, MONTH, 0)
    job = await lost_gateway(world, rules=(SPEND, TOKENS))
    world.clock.advance(60_000)
    told = await asyncio.gather(*(ask(world, rules=(SPEND, TOKENS)) for _ in range(20)))
    assert told == [Repeated(job.request_id, True, False)] * 20
    assert await world.funds.level("acme") == Level(1, RICH_NANO - 20, 0)
    assert [state.remaining for state in await world.counters.states([SPEND, TOKENS])] == [980, 985]
    kept = (await world.gateway.standing(job.request_id)).end
    assert kept is not None
    assert (kept.usage, kept.cost_nano, kept.answers) == (Usage(10, 5), 20, ANSWERS)
    lost, fetched = await world.usage_events()
    assert (lost.request_id, lost.outcome, lost.cost_nano) == (job.request_id, "gateway_lost", 0)
    assert fetched == replace(
        lost,
        request_id=f"{job.request_id}-fetched",
        outcome="finished",
        prompt_tokens=10,
        completion_tokens=5,
        cost_nano=20,
        settled_ms=lost.settled_ms + 60_000,
    )


async def test_embeddings_that_outlived_their_gateway_are_fetched_too(world: World):
    await world.fund()
    await world.must_admit(world.job(kind=EMBED, keep_answer=True), claim=CLAIM, output_reserved=0)
    (job,) = await world.take(W1)
    await end(world, job, Outcome.GATEWAY_LOST, 0, answers=(), vectors=(b"\x00" * 4_096,) * 16)
    assert isinstance(await ask(world), Repeated)
    kept = (await world.gateway.standing(job.request_id)).end
    assert kept is not None
    assert (len(kept.vectors), kept.cost_nano) == (16, 10)


async def test_without_the_credit_for_it_the_answer_waits(world: World):
    job = await lost_gateway(world)
    assert await world.funds.take_back("all but 19", "acme", 1, RICH_NANO - 19) == RICH_NANO - 19
    refused = await world.must_refuse(world.job(), claim=CLAIM)
    assert (refused.by, refused.refusal.limit, refused.refusal.remaining) == (RefusedBy.CREDIT, 20, 19)
    assert isinstance(await ask(world, OTHER_BODY), Repeated), "that caller gets no answer, so pays for none"
    assert await world.credit() == 19
    await world.restart()
    assert (await world.must_refuse(world.job(), claim=CLAIM)).by is RefusedBy.EPOCH
    assert await world.funds.open_epoch(2)
    assert await world.funds.give("enough", "acme", 2, 20)
    assert await ask(world) == Repeated(job.request_id, True, False)
    assert await world.funds.level("acme") == Level(2, 0, 0)
    assert [event.epoch for event in await world.usage_events()] == [1, 2]


async def test_nobody_pays_for_what_is_no_longer_kept(world: World):
    job = await lost_gateway(world)
    await world.forget(601_000)
    assert await ask(world) == Repeated(job.request_id, True, False)
    assert await world.credit() == RICH_NANO


@pytest.mark.parametrize("kept", [{"answers": ()}, {"answers": (), "finish_reasons": ("error",)}])
async def test_without_the_whole_answer_a_lost_gateway_frees_the_claim(world: World, kept: dict[str, object]):
    job = await running(world)
    await end(world, job, Outcome.GATEWAY_LOST, **kept)
    assert isinstance(await ask(world), Admitted)
