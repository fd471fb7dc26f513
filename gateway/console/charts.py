"""From sums to the plain data that assets/charts.js draws (docs/console.md, Charts)."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

SERIES_MAX = 6  # as many colours as there are
REST = "Others"


def stacked(
    periods: Sequence[tuple[int, str]],
    values: Sequence[tuple[int, str, int]],
    *,
    unit: str,
    scale: int,
    show: Callable[[int], str],
) -> dict[str, Any]:
    """Bars of `values`, (start of the period, name, number), over all of `periods`, (start, label). The largest names
    have a series each, the rest have one together. `scale`: so many make one `unit`; `show`: the exact text.
    """
    by_name: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for start_ms, name, value in values:
        by_name[name][start_ms] += value
    largest = sorted(by_name, key=lambda name: (-sum(by_name[name].values()), name))
    if len(largest) > SERIES_MAX:
        rest: dict[int, int] = defaultdict(int)
        for name in largest[SERIES_MAX - 1 :]:
            for start_ms, value in by_name[name].items():
                rest[start_ms] += value
        largest = [*largest[: SERIES_MAX - 1], REST]
        by_name[REST] = rest
    return {
        "kind": "bar",
        "stack": True,
        "unit": unit,
        "whole": scale == 1,
        "x": [label for _, label in periods],
        "series": [
            {
                "name": name,
                "data": [by_name[name].get(start_ms, 0) / scale for start_ms, _ in periods],
                "exact": [show(by_name[name].get(start_ms, 0)) for start_ms, _ in periods],
            }
            for name in largest
        ],
    }


def hour_label(at_ms: int, zone: str) -> str:
    return f"{_local(at_ms, zone):%H:%M}"


def day_label(at_ms: int, zone: str) -> str:
    local = _local(at_ms, zone)
    return f"{local.day} {local:%b}"


def day_hour_label(at_ms: int, zone: str) -> str:
    return f"{day_label(at_ms, zone)}, {hour_label(at_ms, zone)}"


def month_label(at_ms: int, zone: str) -> str:
    return f"{_local(at_ms, zone):%b %Y}"


def _local(at_ms: int, zone: str) -> datetime:
    return datetime.fromtimestamp(at_ms // 1_000, UTC).astimezone(ZoneInfo(zone))
