"""Whatever happens, in whatever order: money is conserved, nothing leaks, every request settles exactly once."""

import asyncio
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

from core.meter.usage import UsageEvent
from tests.contracts.queue.operations import OPEN_RULE, SEEDED_NANO, Operation, Player, operations, refused
from tests.contracts.queue.world import SETTINGS, WorldMaker, memory_world

MEMORY_EXAMPLES = 50
REDIS_EXAMPLES = 15
SHRINKING_S_MAX = 600  # spent only when something is broken: the shortest such life is looked for


@pytest.mark.timeout(SHRINKING_S_MAX)
def test_invariants_hold_after_every_operation(new_world: WorldMaker):
    in_memory = new_world is memory_world

    @settings(
        max_examples=MEMORY_EXAMPLES if in_memory else REDIS_EXAMPLES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(operations)
    def hold(drawn: list[Operation]) -> None:
        asyncio.run(play(new_world, drawn))

    hold()


async def play(new_world: WorldMaker, drawn: list[Operation]) -> None:
    async with new_world() as world:
        player = Player(world)
        await player.start()
        events: list[UsageEvent] = []
        before = await player.snapshot()
        for operation in drawn:
            answer = await player.play(operation)
            events += await world.usage_events()
            after = await player.snapshot()
            if refused(answer):
                assert after == before, operation
            check_money(player, events, after[1])
            check_counts(player, events, after)
            before = after
        await player.end_all()
        events += await world.usage_events()
        stats, credit, in_scope = await player.snapshot()
        assert (stats.reservations_open, in_scope) == (0, 0)
        assert {(tier.queued, tier.running) for tier in stats.tiers.values()} == {(0, 0)}
        assert sorted(event.request_id for event in events) == sorted(player.reserved_nano)
        check_money(player, events, credit)


def check_money(player: Player, events: list[UsageEvent], credit: dict[str, int]) -> None:
    """credit + reserved + charged = seeded."""
    settled = {event.request_id for event in events}
    reserved, charged = Counter[str](), Counter[str]()
    for job in player.jobs:
        if job.request_id not in settled:
            reserved[job.organisation] += player.reserved_nano[job.request_id]
    for event in events:
        charged[event.organisation] += event.cost_nano
        assert event.outcome in {"finished", "cancelled"} or event.cost_nano == 0
    for name, seeded in SEEDED_NANO.items():
        assert credit[name] + reserved[name] + charged[name] == seeded


def check_counts(player: Player, events: list[UsageEvent], snapshot) -> None:
    stats, _, in_scope = snapshot
    settled = Counter(event.request_id for event in events)
    assert set(settled.values()) <= {1}
    assert settled.keys() <= player.reserved_nano.keys()
    assert stats.reservations_open == len(player.jobs) - len(settled)
    assert 0 <= in_scope <= OPEN_RULE.limit
    waiting = sum(stats.tiers[name].queued + stats.tiers[name].running for name in SETTINGS.tiers)
    assert 0 <= waiting <= stats.reservations_open
