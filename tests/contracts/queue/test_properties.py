"""Whatever happens, in whatever order: money is conserved, nothing leaks, every request settles exactly once."""

import asyncio
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

from core.meter.credit import Level
from core.meter.usage import UsageEvent
from tests.contracts.queue.operations import OPEN_RULE, Operation, Player, operations, refused
from tests.contracts.queue.world import SETTINGS, WorldMaker, memory_world

MEMORY_EXAMPLES = 50
REDIS_EXAMPLES = 15
FULL = 10  # times as many, with --full
SHRINKING_S_MAX = 600  # spent only when something is broken: the shortest such life is looked for


@pytest.mark.timeout(SHRINKING_S_MAX)
def test_invariants_hold_after_every_operation(new_world: WorldMaker, pytestconfig: pytest.Config):
    examples = MEMORY_EXAMPLES if new_world is memory_world else REDIS_EXAMPLES
    if pytestconfig.getoption("--full"):
        examples *= FULL

    @settings(
        max_examples=examples,
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
        stats, levels, in_scope = await player.snapshot()
        assert (stats.reservations_open, in_scope) == (0, 0)
        assert {(tier.queued, tier.running) for tier in stats.tiers.values()} == {(0, 0)}
        assert sorted(settled(events)) == sorted(player.reserved_nano)
        assert {level.reserved_nano for level in levels.values()} == {0}
        check_money(player, events, levels)


def settled(events: list[UsageEvent]) -> list[str]:
    """Without what was paid once more, when an answer was fetched that its gateway had left behind."""
    return [event.request_id for event in events if not event.request_id.endswith("-fetched")]


def check_money(player: Player, events: list[UsageEvent], levels: dict[str, Level]) -> None:
    """In the epoch of the level: free + reserved + charged = given, and nothing is ever below zero."""
    charged = Counter[tuple[int, str]]()
    for event in events:
        charged[event.epoch, event.organisation] += event.cost_nano
        assert event.outcome in {"finished", "cancelled"} or event.cost_nano == 0
    for name, level in levels.items():
        assert min(level.available_nano, level.reserved_nano) >= 0
        key = (level.epoch, name)
        assert level.available_nano + level.reserved_nano + charged[key] == player.moved_nano[key]


def check_counts(player: Player, events: list[UsageEvent], snapshot) -> None:
    stats, _, in_scope = snapshot
    assert set(Counter([event.request_id for event in events]).values()) <= {1}
    ended = set(settled(events))
    assert ended <= player.reserved_nano.keys()
    assert stats.reservations_open == len(player.jobs) - len(ended)
    assert 0 <= in_scope <= OPEN_RULE.limit
    waiting = sum(stats.tiers[name].queued + stats.tiers[name].running for name in SETTINGS.tiers)
    assert 0 <= waiting <= stats.reservations_open
