"""Who is served next: weights, workspaces, bands, ageing, the pool's reserve, and a long run of it all."""

from collections import Counter

from core.queue.base import AGEING_MS, WorkerSlot
from core.wire import BATCH, Job, Usage
from tests.contracts.queue.world import World

# Tier "open" has no reserve, so that only the order matters.
W1 = WorkerSlot("w1", "open", 1_000)
POOL_A = WorkerSlot("w1", "tiny", 4)
POOL_B = WorkerSlot("w2", "tiny", 4)


def organisations(jobs: list[Job]) -> str:
    return "".join(job.organisation for job in jobs)


async def test_one_flow_is_first_in_first_out(world: World):
    jobs = [await world.admit(tier="open") for _ in range(5)]
    assert [job.request_id for job in await world.take(W1, 5)] == [job.request_id for job in jobs]


async def test_organisations_take_turns_however_much_one_has_queued(world: World):
    for name in "aaaaaabbb":
        await world.admit(name, tier="open")
    assert organisations(await world.take(W1, 9)) == "abababaaa"


async def test_turns_are_measured_in_cost(world: World):
    for _ in range(6):
        await world.admit("a", tier="open", cost_expected=30)
        await world.admit("b", tier="open", cost_expected=10)
    assert Counter(organisations(await world.take(W1, 8))) == {"a": 2, "b": 6}


async def test_weights_share_the_tier(world: World):
    for _ in range(40):
        await world.admit("a", tier="open", weight=3)
        await world.admit("b", tier="open", weight=1)
    assert Counter(organisations(await world.take(W1, 40))) == {"a": 30, "b": 10}


async def test_workspaces_share_what_their_organisation_gets(world: World):
    for _ in range(4):
        await world.admit("a", tier="open", workspace="a-one")
    for _ in range(2):
        await world.admit("a", tier="open", workspace="a-two")
    for _ in range(6):
        await world.admit("b", tier="open")
    taken = await world.take(W1, 12)
    assert organisations(taken) == "ab" * 6
    of_a = [job.workspace for job in taken if job.organisation == "a"]
    assert of_a == ["a-one", "a-two", "a-one", "a-two", "a-one", "a-one"]


async def test_nobody_saves_up_by_being_idle(world: World):
    for _ in range(20):
        await world.admit("a", tier="open")
    await world.take(W1, 10)
    for _ in range(10):
        await world.admit("late", tier="open")
    assert Counter(organisations(await world.take(W1, 10)).replace("late", "L")) == {"a": 5, "L": 5}


async def test_the_order_is_corrected_by_what_a_job_really_cost(world: World):
    """Both expected 20; that of a turned out to be 110, so b is served until it has had as much."""
    for _ in range(10):
        await world.admit("a", tier="open")
        await world.admit("b", tier="open")
    first, second = await world.take(W1, 2)
    assert organisations([first, second]) == "ab"
    await world.finish(W1, first, Usage(10, 100))
    await world.finish(W1, second, Usage(10, 10))
    assert organisations(await world.take(W1, 6)) == "bbbbba"


async def test_cached_prompt_tokens_cost_the_pool_nothing(world: World):
    for _ in range(10):
        await world.admit("a", tier="open")
        await world.admit("b", tier="open")
    first, second = await world.take(W1, 2)
    await world.finish(W1, first, Usage(10, 10, cached_tokens=0))
    await world.finish(W1, second, Usage(10, 10, cached_tokens=10))
    assert organisations(await world.take(W1, 3)) == "bab", "b has used 10 and a has used 20"


async def test_interactive_comes_before_batch(world: World):
    await world.admit("a", tier="open", band=BATCH)
    await world.admit("b", tier="open")
    await world.admit("a", tier="open")
    taken = await world.take(W1, 3)
    assert [(job.organisation, job.band) for job in taken] == [
        ("a", "interactive"),
        ("b", "interactive"),
        ("a", "batch"),
    ]


async def test_a_batch_job_that_has_waited_a_minute_competes(world: World):
    old = await world.admit("a", tier="open", band=BATCH)
    world.clock.advance(AGEING_MS)
    young = [await world.admit("b", tier="open") for _ in range(2)]
    (first,) = await world.take(W1)
    assert first.request_id == young[0].request_id, "exactly a minute is not longer than a minute"
    world.clock.advance(1)
    taken = await world.take(W1, 2)
    assert [job.request_id for job in taken] == [old.request_id, young[1].request_id]


async def test_an_expired_job_is_never_given_out(world: World):
    late = await world.admit(tier="open", deadline_ms=world.clock.now_ms() + 1_000)
    good = await world.admit(tier="open")
    world.clock.advance(1_001)
    assert [job.request_id for job in await world.take(W1, 5)] == [good.request_id]
    standing = await world.gateway.standing(late.request_id)
    assert standing.end is not None
    assert (standing.end.cost_nano, standing.end.usage) == (0, Usage())
    assert [event.outcome for event in await world.usage_events()] == ["timeout"]


async def test_queue_position_counts_those_before(world: World):
    jobs = [await world.admit(tier="open") for _ in range(3)]
    await world.admit(tier="open", workspace="other")
    assert [(await world.gateway.standing(job.request_id)).queue_position for job in jobs] == [0, 1, 2]
    await world.take(W1)
    positions = [(await world.gateway.standing(job.request_id)).queue_position for job in jobs]
    assert sorted(positions) in ([-1, 0, 1], [0, 1, 2]), "one of the two workspaces was served"


async def test_a_flood_never_takes_the_last_quarter_and_a_newcomer_starts_at_once(world: World):
    for _ in range(50):
        await world.admit("flood")
    await world.take(POOL_B, 0)  # the second worker is there: 8 slots
    held = [*await world.take(POOL_A, 4), *await world.take(POOL_B, 4)]
    assert len(held) == 6
    assert await world.take(POOL_B, 2) == []
    newcomer = await world.admit("new")
    assert [job.request_id for job in await world.take(POOL_B, 2)] == [newcomer.request_id]
    assert await world.take(POOL_B, 1) == []
    await world.finish(POOL_A, held[0])
    await world.finish(POOL_A, held[1])
    assert organisations(await world.take(POOL_A, 4)) == "flood", "7 run with the newcomer; below 6 it may take again"


async def test_below_its_share_an_organisation_may_use_the_reserve(world: World):
    """8 slots and three organisations: shares of 2 with a newcomer counted in."""
    for _ in range(6):
        await world.admit("a")
    assert len(await world.take(WorkerSlot("w1", "tiny", 8), 8)) == 6
    for _ in range(4):
        await world.admit("b")
        await world.admit("c")
    assert organisations(await world.take(WorkerSlot("w1", "tiny", 8), 2)) == "bc"


async def test_a_small_pool_has_no_reserve(world: World):
    for _ in range(3):
        await world.admit()
    assert len(await world.take(WorkerSlot("w1", "tiny", 3), 3)) == 3


async def test_slots_of_workers_that_left_do_not_count(world: World):
    for _ in range(10):
        await world.admit()
    await world.take(POOL_B, 0)
    await world.workers.leave(POOL_B)
    assert len(await world.take(POOL_A, 4)) == 3


async def test_in_the_long_run_cost_served_is_proportional_to_weight(world: World):
    """Three organisations that always wait, jobs of many sizes whose cost was guessed wrongly."""
    weights = {"a": 1, "b": 2, "c": 5}
    served: Counter[str] = Counter()
    slot = WorkerSlot("w1", "open", 4)
    for name, weight in weights.items():
        for _ in range(4):
            await world.admit(name, weight=weight, tier="open")
    for step in range(240):
        (job,) = await world.take(slot)
        usage = Usage(10, 1 + (step * 37) % 90)
        await world.finish(slot, job, usage)
        served[job.organisation] += usage.prompt_tokens + usage.completion_tokens
        name = job.organisation
        await world.admit(name, weight=weights[name], tier="open", cost_expected=5 + (step * 53) % 120)
    total = sum(served.values())
    for name, weight in weights.items():
        assert abs(served[name] / total - weight / 8) < 0.03, served
