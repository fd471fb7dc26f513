"""Chosen experts in SQL: counted once whatever fails, summed by hour, told as shares."""

import pytest

from billing.experts import (
    ExpertCount,
    LayerCounts,
    expert_series,
    expert_shares,
    forget,
    layer_points,
    sampled_tiers,
    sampled_workspaces,
)
from billing.experts_move import move_experts
from core.clock import ManualClock
from core.db import DatabaseUnavailableError
from core.errors import PlatformError
from core.experts import ExpertCounts, ExpertSample, MemoryExpertLog

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS
DAY_MS = 24 * HOUR_MS


def sample(first=(1, 2, 0), second=(0, 3, 0), workspace="w1", tier="small"):
    return ExpertSample(tier, "o1", workspace, ExpertCounts((0, 1), (first, second)))


@pytest.fixture
def clock():
    return ManualClock(START_MS)


@pytest.fixture
def log(clock):
    return MemoryExpertLog(clock)


class LosesAcknowledgements:
    """What was taken in is not forgotten: it comes again."""

    def __init__(self, log):
        self._log = log

    async def read(self, after, count):
        return await self._log.read("0-0", count) if after == "0-0" else []

    async def forget(self, up_to):
        """Lost."""


def shares(database, *arguments, **options):
    with database.reading() as session:
        return expert_shares(session, *arguments, **options)


def series(database, *arguments, **options):
    with database.reading() as session:
        return expert_series(session, *arguments, **options)


async def test_samples_add_up_by_hour_tier_and_workspace(database, log, clock):
    await log.append([sample(), sample(workspace="w2"), sample(tier="medium")])
    clock.advance(HOUR_MS)
    await log.append([sample(first=(0, 0, 7))])
    assert await move_experts(database, log, "c0") == 4
    assert await move_experts(database, log, "c0") == 0
    whole = START_MS, START_MS + 2 * HOUR_MS
    assert shares(database, "small", *whole) == [LayerCounts(0, (2, 4, 7)), LayerCounts(1, (0, 9, 0))]
    assert shares(database, "small", *whole, workspace="w2") == [LayerCounts(0, (1, 2, 0)), LayerCounts(1, (0, 3, 0))]
    assert shares(database, "small", START_MS, START_MS + HOUR_MS)[0].counts == (2, 4, 0)
    assert shares(database, "none", *whole) == []
    points = series(database, "small", *whole, layer=0)
    assert [(point.hour_ms, point.counts) for point in points] == [
        (START_MS, (2, 4, 0)),
        (START_MS + HOUR_MS, (0, 0, 7)),
    ]
    assert [point.counts for point in series(database, "small", *whole, workspace="w1")] == [(1, 5, 0), (0, 3, 7)]


async def test_days_say_what_hours_say(database, log, clock):
    await log.append([sample(), sample(workspace="w2", first=(1, 1, 1))])
    clock.advance(DAY_MS)
    await log.append([sample(first=(0, 0, 7)), sample(tier="medium")])
    await move_experts(database, log, "c0")
    day_ms = START_MS - START_MS % DAY_MS
    with database.reading() as session:
        assert sampled_tiers(session) == ["medium", "small"]
        assert sampled_workspaces(session, "small", day_ms, 5) == ["w1", "w2"]
        assert sampled_workspaces(session, "small", day_ms + DAY_MS, 5) == ["w1"]
        for workspace, first, second in ((None, (2, 3, 1), (0, 0, 7)), ("w2", (1, 1, 1), None), ("none", None, None)):
            asked = session, "small", day_ms, day_ms + 2 * DAY_MS, workspace
            days = [(point.start_ms, point.layer.counts) for point in layer_points(*asked, by_day=True)]
            hours = [(point.start_ms, point.layer.counts) for point in layer_points(*asked)]
            counted = [(at_ms, counts) for at_ms, counts in ((0, first), (DAY_MS, second)) if counts]
            assert days[::2] == [(day_ms + at_ms, counts) for at_ms, counts in counted]
            assert hours[::2] == [(START_MS + at_ms, counts) for at_ms, counts in counted]


async def test_a_sample_that_comes_again_counts_once(database, log):
    await log.append([sample()])
    assert await move_experts(database, LosesAcknowledgements(log), "c0") == 1
    await log.append([sample()])
    assert await move_experts(database, log, "c0") == 1
    assert shares(database, "small", START_MS, START_MS + HOUR_MS)[0].counts == (2, 4, 0)


async def test_two_movers_that_read_the_same_count_it_once(database, log, monkeypatch):
    """The other one commits between our reading and our writing."""
    await log.append([sample(), sample()])
    original = log.read

    async def read(after, count):
        monkeypatch.setattr(log, "read", original)
        entries = await original(after, count)
        assert await move_experts(database, LosesAcknowledgements(log), "c0") == 2
        return entries

    monkeypatch.setattr(log, "read", read)
    assert await move_experts(database, log, "c0") == 0
    assert shares(database, "small", START_MS, START_MS + HOUR_MS)[0].counts == (2, 4, 0)


async def test_nothing_is_forgotten_that_was_not_committed(database, log, monkeypatch):
    await log.append([sample()])

    def away(*_arguments):
        raise DatabaseUnavailableError("away")

    with monkeypatch.context() as patched:
        patched.setattr("billing.experts_move.take_in", away)
        with pytest.raises(DatabaseUnavailableError):
            await move_experts(database, log, "c0")
    assert await move_experts(database, log, "c0") == 1


async def test_each_cell_has_its_own_place(database, log, clock):
    other = MemoryExpertLog(clock)
    await log.append([sample()])
    await other.append([sample()])
    assert [await move_experts(database, log, "c0"), await move_experts(database, other, "c1")] == [1, 1]


async def test_old_hours_are_forgotten(database, log, clock):
    await log.append([sample()])
    clock.advance(2 * HOUR_MS)
    await log.append([sample()])
    await move_experts(database, log, "c0")
    with database.unit_of_work() as session:
        forget(session, START_MS + HOUR_MS)
        assert session.query(ExpertCount.hour_ms).distinct().all() == [(START_MS + 2 * HOUR_MS,)]


def test_how_evenly_they_are_spread():
    even, one, none = LayerCounts(0, (5, 5, 5, 5)), LayerCounts(0, (0, 9, 0, 0)), LayerCounts(0, (0, 0))
    assert (even.max_over_mean, even.entropy, even.uniform_share) == (1, pytest.approx(1), 0.25)
    assert (one.max_over_mean, one.entropy, one.shares) == (4, pytest.approx(0), (0, 1, 0, 0))
    assert (none.max_over_mean, none.entropy, none.total) == (0, 0, 0)
    assert LayerCounts(0, (3, 1)).entropy == pytest.approx(0.8112781)


def test_a_question_is_bounded(database):
    with pytest.raises(PlatformError, match="At most 92 days"):
        shares(database, "small", START_MS - 93 * DAY_MS, START_MS)
