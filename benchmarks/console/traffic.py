"""A day of requests: more by day than by night, fewer on weekends, more each month, most of few organisations."""

import random
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import cos, exp, pi
from typing import Any

from benchmarks.console.people import Company
from billing.models import UsageRecord
from billing.rollups import FAILED, HOUR_MS, Counted, hours_of, spans_of
from core.meter.cost import cost_nano

DAY_MS = 24 * HOUR_MS
RECORD_COLUMNS = tuple(column.key for column in UsageRecord.__mapper__.columns)
OUTCOMES = (("finished", 960), ("cancelled", 25), ("failed", 8), ("timeout", 5), ("gateway_lost", 2))
LOST_ONE_IN = 5_000  # requests that nobody pays
PATTERNS = 4_096  # of tokens and times; drawn from again and again
SLOTS = 4  # ids of transactions for each organisation and hour
ORGANISATION_SLOTS = 64
USAGE_SLOT = 3
EPOCH = 1


@dataclass(frozen=True, slots=True)
class Tariff:
    """A price version of a tier, in nano-units per 1 000 tokens, from start_ms on."""

    version: str
    start_ms: int
    input_nano: int
    cached_nano: int
    output_nano: int


@dataclass(frozen=True, slots=True)
class Town:
    """All that a day is made from. `tariffs` by tier and start."""

    companies: Sequence[Company]
    tariffs: dict[str, tuple[Tariff, ...]]
    start_ms: int
    end_ms: int
    records: int

    @property
    def days(self) -> int:
        return -(-(self.end_ms - self.start_ms) // DAY_MS)


@dataclass(slots=True)
class Batch:
    """What one organisation owes for an hour."""

    transaction_id: int
    organisation: int
    booked_ms: int
    first_id: str = ""
    charged_nano: int = 0
    lost_nano: int = 0


@dataclass(slots=True)
class Day:
    """Rows of one day, ready to be loaded."""

    number: int
    records: list[tuple[Any, ...]] = field(default_factory=list)
    spans: list[tuple[Any, ...]] = field(default_factory=list)
    hours: list[tuple[Any, ...]] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    used: dict[str, int] = field(default_factory=dict)


def make_day(town: Town, number: int) -> Day:
    chance = random.Random(1_000 + number)
    patterns = [_pattern(chance) for _ in range(PATTERNS)]
    weights = list(accumulate(1 / (place + 1) ** 0.9 for place in range(len(town.companies))))
    day = Day(number)
    shares = _shares(town)
    for hour in range(24):
        start_ms = town.start_ms + number * DAY_MS + hour * HOUR_MS
        end_ms = min(start_ms + HOUR_MS, town.end_ms)
        if start_ms >= end_ms:
            break
        place = number * 24 + hour
        count = round(town.records * shares[place + 1]) - round(town.records * shares[place])
        _hour(town, day, chance, patterns, weights, start_ms, end_ms, count)
    return day


def weight_of(at_ms: int, through: float) -> float:
    """How busy an hour is; `through` the year goes from 0 to 1."""
    hour, weekday = at_ms // HOUR_MS % 24, (at_ms // DAY_MS + 3) % 7
    daily = 0.25 + 0.75 * (1 - cos(2 * pi * (hour - 3) / 24)) / 2
    return daily * (0.4 if weekday >= 5 else 1.0) * (0.5 + through)


def _shares(town: Town) -> list[float]:
    """What part of all records came before each hour."""
    hours = town.days * 24
    weights = [weight_of(town.start_ms + hour * HOUR_MS, hour / hours) for hour in range(hours)]
    # The last hours may lie after the end.
    weights = [
        weight * max(0.0, min(1.0, (town.end_ms - town.start_ms - hour * HOUR_MS) / HOUR_MS))
        for hour, weight in enumerate(weights)
    ]
    total = sum(weights)
    return [0.0, *(passed / total for passed in accumulate(weights))]


def _pattern(chance: random.Random) -> tuple[int, int, int, int, int, str]:
    """Prompt, cached and completion tokens, time to the first token and after it, in ms, and the outcome."""
    prompt = min(7_000, int(exp(chance.gauss(5.6, 0.9))) + 4)
    cached = int(prompt * chance.random()) if chance.random() < 0.3 else 0
    completion = min(4_000, int(exp(chance.gauss(5.0, 0.8))) + 1)
    first_ms = int(exp(chance.gauss(5.4, 0.5))) + 15
    outcome = chance.choices([name for name, _ in OUTCOMES], [weight for _, weight in OUTCOMES])[0]
    return prompt, cached, completion, first_ms, completion * chance.randint(11, 29), outcome


def _hour(
    town: Town,
    day: Day,
    chance: random.Random,
    patterns: Sequence[tuple[int, int, int, int, int, str]],
    weights: Sequence[float],
    start_ms: int,
    end_ms: int,
    count: int,
) -> None:
    tariffs = {
        tier: found[bisect([each.start_ms for each in found], start_ms) - 1] for tier, found in town.tariffs.items()
    }
    batches: dict[int, Batch] = {}
    counted = []
    moments = sorted(start_ms + int(chance.random() * (end_ms - start_ms)) for _ in range(count))
    for at_ms, company in zip(moments, chance.choices(town.companies, cum_weights=weights, k=count), strict=True):
        number = company.number
        batch = batches.get(number)
        if batch is None:
            place = (start_ms - town.start_ms) // HOUR_MS
            identity = ((place + 1) * ORGANISATION_SLOTS + number) * SLOTS + USAGE_SLOT
            batch = batches[number] = Batch(identity, number, end_ms - 1)
        client = company.clients[int(len(company.clients) * chance.random() ** 2)]
        tier = client.tiers[chance.random() < 0.15]
        record = _record(
            chance, patterns[int(chance.random() * PATTERNS)], batch, company.id, client, tier, at_ms, tariffs[tier]
        )
        batch.first_id = batch.first_id or record[0]
        day.records.append(record)
        counted.append(Counted._make((*record[1:7], *record[9:12], record[13], record[20], *record[15:19])))
        day.used[client.key_id] = at_ms
    spans = spans_of(counted)
    day.spans.extend(spans[key].row(key) for key in sorted(spans))
    hours = hours_of(spans)
    day.hours.extend((*key, *hours[key]) for key in sorted(hours))
    day.batches.extend(batches[number] for number in sorted(batches))


def _record(
    chance: random.Random,
    pattern: tuple[int, int, int, int, int, str],
    batch: Batch,
    organisation: str,
    client: Any,
    tier: str,
    at_ms: int,
    tariff: Tariff,
) -> tuple[Any, ...]:
    """In the order of RECORD_COLUMNS."""
    prompt, cached, completion, first_ms, after_ms, outcome = pattern
    if outcome in FAILED:
        prompt = cached = completion = first_ms = 0
    owed_nano = cost_nano(
        prompt,
        cached,
        completion,
        input_nano=tariff.input_nano,
        cached_nano=tariff.cached_nano,
        output_nano=tariff.output_nano,
    )
    lost_nano = owed_nano if chance.random() * LOST_ONE_IN < 1 else 0
    batch.charged_nano += owed_nano - lost_nano
    batch.lost_nano += lost_nano
    return (
        f"c0{at_ms:012x}{chance.getrandbits(72):018x}",
        organisation,
        client.workspace,
        client.key_id,
        tier,
        "chat",
        outcome,
        1,
        completion % 2 == 0,
        prompt,
        completion,
        cached,
        completion,
        owed_nano - lost_nano,
        tariff.version,
        at_ms,
        at_ms + 4,
        first_ms,
        at_ms + 4 + first_ms + after_ms,
        EPOCH,
        lost_nano,
        batch.transaction_id if owed_nano else None,
    )
