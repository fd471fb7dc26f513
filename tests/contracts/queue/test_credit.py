"""Credit that billing gives and takes back, and the epochs that it belongs to."""

import asyncio
from dataclasses import replace

from core.meter.credit import Epoch, Level
from core.queue.base import Admitted, Price, Refused, RefusedBy, RequestState, WorkerSlot
from core.queue.rules import Rule, RuleKind, Window
from core.wire import Usage
from tests.contracts.queue.world import RICH_NANO, START_MS, World

W1 = WorkerSlot("w1", "tiny", 8)
MONTH = Window("2023-11", START_MS - 10**9, START_MS + 10**9)
CAP = Rule(RuleKind.SPEND_PER_MONTH, "organisation", "acme", 1_000, windows=(MONTH,))
CENT = Price("cent", 10**6, 10**6, 10**6)  # 10 tokens cost 0.01 of a unit of 10^9


async def test_a_refusal_names_what_is_needed_free_and_reserved(world: World):
    await world.fund("acme", 100)
    for left in (70, 40, 10):
        assert (await world.must_admit(world.job())).credit_left_nano == left
    refused = await world.must_refuse(world.job())
    assert (refused.by, refused.refusal.rule, refused.refusal.scope) == (RefusedBy.CREDIT, "credit", "organisation")
    assert (refused.refusal.limit, refused.refusal.remaining, refused.reserved_nano) == (30, 10, 90)
    assert refused.refusal.retry_after_ms is None
    assert await world.funds.level("acme") == Level(1, 10, 90)


async def test_1_00_admits_exactly_100_of_500_also_while_it_arrives_in_blocks(world: World):
    give = [world.funds.give(f"block-{part}", "acme", 1, 10**8) for part in range(10)]
    jobs = [world.job(prompt_tokens=10_000) for _ in range(500)]
    asks = [world.try_admit(job, prices=(CENT,), output_reserved=0) for job in jobs]
    early = [answer for answer in await asyncio.gather(*asks[:250], *give) if isinstance(answer, Admitted)]
    late = [answer for answer in await asyncio.gather(*asks[250:]) if isinstance(answer, Admitted)]
    assert len(early) + len(late) == 100
    assert await world.funds.level("acme") == Level(1, 0, 10**9)


async def test_a_gift_is_given_once(world: World):
    given = await asyncio.gather(*(world.funds.give("gift", "acme", 1, 500) for _ in range(20)))
    assert given == [True] * 20
    assert await world.funds.level("acme") == Level(1, 500, 0)
    assert await world.funds.give("another", "acme", 1, 20)
    assert await world.funds.level("acme") == Level(1, 520, 0)
    assert await world.funds.level("other") == Level(1, 0, 0)


async def test_only_what_is_free_is_taken_back_and_once(world: World):
    await world.fund("acme", 100)
    await world.must_admit(world.job())
    taken = await asyncio.gather(*(world.funds.take_back("return", "acme", 1, 80) for _ in range(20)))
    assert taken == [70] * 20
    assert await world.funds.level("acme") == Level(1, 0, 30)
    (job,) = await world.take(W1)
    await world.finish(W1, job, Usage(10, 5))
    assert await world.funds.level("acme") == Level(1, 10, 0)
    assert await world.funds.take_back("return", "acme", 1, 80) == 70, "the same again"
    assert await world.funds.take_back("next", "acme", 1, 4) == 4
    assert await world.funds.take_back("last", "acme", 1, 80) == 6
    assert await world.funds.take_back("nothing", "acme", 1, 80) == 0


async def test_epochs_only_rise_and_begin_without_credit(world: World):
    assert await world.funds.epoch() == Epoch(1, is_open=True)
    await world.fund("acme", 100)
    assert not await world.funds.open_epoch(0)
    assert await world.funds.open_epoch(1), "somebody else was quicker"
    assert await world.funds.level("acme") == Level(1, 100, 0)
    assert await world.funds.open_epoch(3)
    assert await world.funds.epoch() == Epoch(3, is_open=True)
    assert await world.funds.level("acme") == Level(3, 0, 0)
    assert not await world.funds.open_epoch(2)
    assert not await world.funds.give("old", "acme", 1, 50)
    assert await world.funds.take_back("old-return", "acme", 1, 50) == 0
    assert await world.funds.level("acme") == Level(3, 0, 0)
    assert await world.funds.give("new", "acme", 3, 50)
    assert await world.funds.level("acme") == Level(3, 50, 0)


async def test_after_a_restart_nothing_is_admitted_until_the_next_epoch(world: World):
    await world.fund("acme", 1_000)
    await world.must_admit(world.job())
    await world.restart()
    assert await world.funds.epoch() == Epoch(1, is_open=False)
    assert not await world.funds.open_epoch(1), "its number was opened on another run"
    free = replace(CENT, input_nano=0, output_nano=0)
    for prices in ((CENT,), (free,)):
        refused = await world.must_refuse(world.job(), prices=prices)
        assert (refused.by, refused.refusal.retry_after_ms) == (RefusedBy.EPOCH, 1_000)
    assert not await world.funds.give("late", "acme", 1, 50)
    assert await world.funds.take_back("late-return", "acme", 1, 50) == 0
    (job,) = await world.take(W1)
    assert (await world.finish(W1, job)).accepted, "what was admitted goes on"
    assert await world.funds.open_epoch(2)
    assert await world.funds.level("acme") == Level(2, 0, 0)
    assert (await world.must_refuse(world.job())).by is RefusedBy.CREDIT
    assert await world.funds.give("gift-2", "acme", 2, 1_000)
    await world.must_admit(world.job())


async def test_what_an_older_epoch_admitted_moves_no_credit_of_this_one(world: World):
    await world.fund("acme", 1_000)
    for _ in range(2):
        await world.must_admit(world.job())
    first, second = await world.take(W1, 2)
    await world.restart()
    await world.finish(W1, first, Usage(10, 5))
    assert await world.funds.open_epoch(2)
    assert await world.funds.give("gift-2", "acme", 2, 500)
    await world.must_admit(world.job())
    settled = await world.finish(W1, second, Usage(10, 5))
    assert (settled.accepted, settled.end.cost_nano) == (True, 20)
    assert await world.funds.level("acme") == Level(2, 470, 30)
    assert [(event.cost_nano, event.epoch) for event in await world.usage_events()] == [(20, 1), (20, 1)]


async def test_calendars_begin_anew_with_an_epoch_and_count_what_older_ones_used(world: World):
    await world.fund("acme", 1_000)
    await world.counters.seed(CAP, MONTH, 100)
    for _ in range(2):
        await world.must_admit(world.job(), rules=(CAP,))
    first, second = await world.take(W1, 2)
    assert await world.funds.open_epoch(2)
    await world.finish(W1, first, Usage(10, 5))  # SQL knows it before it seeds
    assert await world.funds.give("gift-2", "acme", 2, 500)
    assert (await world.must_refuse(world.job(), rules=(CAP,))).by is RefusedBy.UNSEEDED
    await world.counters.seed(CAP, MONTH, 120)
    await world.finish(W1, second, Usage(10, 5))
    (state,) = await world.counters.states([CAP])
    assert state.remaining == 1_000 - 120 - 20, "the whole of it, for nothing was reserved here"


async def test_a_cell_that_never_had_an_epoch_admits_and_counts_nothing(blank_world: World):
    world = blank_world
    assert await world.funds.epoch() == Epoch(0, is_open=False)
    assert (await world.must_refuse(world.job())).by is RefusedBy.EPOCH
    await world.counters.seed(CAP, MONTH, 100)
    assert not await world.funds.give("gift", "acme", 1, 10)
    assert await world.funds.open_epoch(1)
    assert await world.funds.give("gift", "acme", 1, 1_000), "it was refused before, so this is no repetition"
    assert (await world.must_refuse(world.job(), rules=(CAP,))).by is RefusedBy.UNSEEDED
    await world.must_admit(world.job())


async def test_large_gifts_add_up_to_the_last_digit(world: World):
    for part in range(3):
        assert await world.funds.give(f"large-{part}", "acme", 1, 2**50 + 1)
    assert await world.funds.level("acme") == Level(1, 3 * 2**50 + 3, 0)
    assert await world.funds.take_back("back", "acme", 1, 2**51 + 1) == 2**51 + 1
    assert await world.credit() == 2**50 + 2


async def test_a_refused_admission_reserves_nothing(world: World):
    await world.fund()
    await world.counters.seed(CAP, MONTH, 1_000)
    job = world.job()
    assert isinstance(await world.try_admit(job, rules=(CAP,)), Refused)
    assert await world.funds.level("acme") == Level(1, RICH_NANO, 0)
    assert (await world.gateway.standing(job.request_id)).state is RequestState.UNKNOWN
