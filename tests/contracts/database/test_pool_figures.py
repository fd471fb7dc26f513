"""Throughput and latencies of tiers, over all callers."""

import pytest

from billing.pool_figures import PoolFigures, pool_figures
from billing.records import store
from billing.rollups import SPAN_MS
from core.errors import PlatformError
from tests.usage_events import usage_event

START_MS = 1_700_000_000_000 // SPAN_MS * SPAN_MS
EMPTY = {0.5: None, 0.95: None, 0.99: None}


def event(number, *, at_ms=0, wait_ms=10, first_ms=100, gap_ms=20, tokens=11, **changes):
    admitted_ms = START_MS + at_ms + number
    fields = {
        "admitted_ms": admitted_ms,
        "taken_ms": admitted_ms + wait_ms,
        "first_token_ms": first_ms,
        "settled_ms": admitted_ms + wait_ms + first_ms + gap_ms * (tokens - 1),
        "decoded_tokens": tokens,
        "completion_tokens": tokens,
        "cost_nano": 0,
    }
    return usage_event(number, **(fields | changes))


def figures(database, *tiers, from_ms=START_MS, to_ms=START_MS + SPAN_MS):
    with database.reading() as session:
        return pool_figures(session, tiers, from_ms, to_ms)


def test_a_tier_adds_up_over_all_who_called(database):
    events = [event(number, organisation=f"o{number % 3}", gap_ms=number) for number in range(1, 101)]
    late = event(101, at_ms=SPAN_MS)
    store(database, [*events, event(102, tier="mistral-small", outcome="failed", completion_tokens=0), late], START_MS)
    found = figures(database, "mistral-tiny", "mistral-small", "none")
    tiny = found["mistral-tiny"]
    assert (tiny.requests, tiny.failed, tiny.completion_tokens) == (100, 0, 1_100)
    assert tiny.tokens_per_s == pytest.approx(1_100 / 900)
    assert tiny.inter_token_ms == {0.5: 50.0, 0.95: 95.0, 0.99: 99.0}
    assert all(110 <= value <= 121 for value in tiny.first_token_ms.values())
    assert tiny.total_ms[0.5] < tiny.total_ms[0.99]
    assert (found["mistral-small"].requests, found["mistral-small"].failed) == (1, 1)
    assert found["none"] == PoolFigures(0, 0, 0, 0.0, EMPTY, EMPTY, EMPTY)
    assert figures(database, "mistral-tiny", to_ms=START_MS + SPAN_MS + 1)["mistral-tiny"].requests == 101


def test_one_token_has_no_gap_and_neither_has_what_never_began(database):
    store(database, [event(1, tokens=1), event(2, first_ms=0, tokens=5)], START_MS)
    assert figures(database, "mistral-tiny")["mistral-tiny"].inter_token_ms == EMPTY


def test_only_the_youngest_records_are_looked_at(database, monkeypatch):
    monkeypatch.setattr("billing.pool_figures.RECORDS_MAX", 3)
    store(database, [event(number, gap_ms=100 - number) for number in range(1, 11)], START_MS)
    assert figures(database, "mistral-tiny")["mistral-tiny"].inter_token_ms == {0.5: 91.0, 0.95: 92.0, 0.99: 92.0}


def test_a_question_is_bounded(database):
    with pytest.raises(PlatformError, match="At most a day"):
        figures(database, "mistral-tiny", to_ms=START_MS + 86_400_001)
