"""Requests per second and per minute beside a plain list of moments: never too many, never too few for long."""

import asyncio
from dataclasses import replace

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from core.queue.base import Admitted
from core.queue.memory.request_log import RequestLog
from core.queue.rules import Rule, RuleKind, RuleState
from tests.contracts.queue.world import START_MS, World, WorldMaker, memory_world, redis_world

SECOND = Rule(RuleKind.REQUESTS_PER_SECOND, "key", "key1", 0)
MINUTE = Rule(RuleKind.REQUESTS_PER_MINUTE, "key", "key1", 0)
SPAN_MS = {SECOND: 1_000, MINUTE: 60_000}

# Thousandths of a span until the next burst, milliseconds beside them, requests in the burst.
_steps = st.tuples(
    st.sampled_from([0, 0, 1, 1, 2, 10, 300, 998, 999, 1_000, 1_001, 5_000]),
    st.integers(-30, 30),
    st.sampled_from([1, 1, 2, 7]),
)
_lives = st.lists(_steps, min_size=1, max_size=40)
DENSE = [(1, 0, 1)] * 2_500  # longer than what is read at once, and cut several times


class Listed:
    """What docs/queue.md promises, from every moment at which a request was admitted."""

    def __init__(self, span_ms: int) -> None:
        self.span_ms = span_ms
        self.slot_ms = span_ms // 1_000
        self.admitted_ms: list[int] = []

    def within(self, now_ms: int, span_ms: int) -> int:
        return sum(at_ms > now_ms - span_ms for at_ms in self.admitted_ms)

    def check(self, admitted: bool, limit: int, now_ms: int) -> None:
        if admitted:
            self.admitted_ms.append(now_ms)
            assert self.within(now_ms, self.span_ms) <= limit
        else:
            assert self.within(now_ms, self.span_ms + self.slot_ms) >= limit


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([1_000, 60_000]), st.integers(1, 12), _lives)
@example(60_000, 900, DENSE)
@example(1_000, 2_000, DENSE)
def test_the_log_and_the_list_agree(span_ms: int, limit: int, life: list[tuple[int, int, int]]):
    log, listed, now_ms = RequestLog(span_ms), Listed(span_ms), START_MS
    for thousandths, beside_ms, burst in life:
        now_ms += max(0, thousandths * listed.slot_ms + beside_ms)
        for _ in range(burst):
            fits = log.used(now_ms) < limit
            if fits:
                log.add(now_ms)
            else:
                retry_ms = log.retry_after_ms(limit, now_ms)
                assert retry_ms is not None
                assert log.used(now_ms + retry_ms) < limit <= log.used(now_ms + retry_ms - 1)
            listed.check(fits, limit, now_ms)
            reset_ms = log.reset_ms(now_ms)
            assert log.used(now_ms + reset_ms) == 0
            assert reset_ms == 0 or log.used(now_ms + reset_ms - 1) > 0


def test_the_list_agrees_with_every_implementation(new_world: WorldMaker):
    examples = 40 if new_world is memory_world else 8

    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.sampled_from([SECOND, MINUTE]), st.integers(1, 12), _lives)
    def agree(kind: Rule, limit: int, life: list[tuple[int, int, int]]) -> None:
        asyncio.run(live(new_world, kind, limit, life))

    agree()


async def live(new_world: WorldMaker, kind: Rule, limit: int, life: list[tuple[int, int, int]]) -> None:
    rule, listed = replace(kind, limit=limit), Listed(SPAN_MS[kind])
    async with new_world() as world:
        await world.fund()
        for thousandths, beside_ms, burst in life:
            world.clock.advance(max(0, thousandths * listed.slot_ms + beside_ms))
            for _ in range(burst):
                admitted = isinstance(await world.try_admit(world.job(), rules=(rule,)), Admitted)
                listed.check(admitted, limit, world.clock.now_ms())


async def test_a_long_log_answers_alike(bundled_socket: str):
    """Both logs grow longer than what is read at once, and are cut several times."""
    soft = replace(MINUTE, limit=0, hard=False)
    hard = (replace(MINUTE, limit=900), replace(SECOND, limit=16))
    async with memory_world() as plain, redis_world(bundled_socket) as lua:
        seen = [await busy_minutes(world, (soft, *hard)) for world in (plain, lua)]
    assert seen[0] == seen[1]


async def busy_minutes(world: World, rules: tuple[Rule, ...]) -> list[tuple[RuleState, ...] | int | None]:
    await world.fund()
    seen: list[tuple[RuleState, ...] | int | None] = []
    for number in range(1_600):
        answer = await world.try_admit(world.job(), rules=rules)
        seen.append(answer.rules if isinstance(answer, Admitted) else answer.refusal.retry_after_ms)
        if number % 100 == 0:
            seen.append(tuple(await world.counters.states(rules)))
        world.clock.advance(7 * number % 131)
    return seen
