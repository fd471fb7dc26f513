"""Ranges of time as people choose them on a page: named ones, or days from a calendar, in the organisation's zone."""

from collections.abc import Mapping
from datetime import date, timedelta
from types import MappingProxyType

from billing.rollups import SPAN_MS
from billing.today import day_of, local_date
from billing.usage import DAY_MS, RANGE_MS_MAX, Period
from core.errors import VALIDATION, PlatformError
from core.queue.rules import Window

CUSTOM = "custom"
RANGES: Mapping[str, str] = MappingProxyType(
    {
        "today": "Today",
        "7d": "Last 7 days",
        "30d": "Last 30 days",
        "month": "This month",
        "last_month": "Last month",
        "12m": "Last 12 months",
        CUSTOM: "Custom",
    }
)
YEARS = range(2000, 2200)
HOUR_DAYS_MAX = 8
DAY_DAYS_MAX = 93
KEY_DAYS_MAX = 62  # of days by key, which have far more rows
MONTH_DAYS_MIN = 28
DATES = "Choose two days, the first not after the last, at most five years."


def window_of(name: str, first: str, last: str, zone: str, now_ms: int) -> Window:
    """The range with this name; a custom one from the day `first` to the day `last`, both inclusive. It ends with the
    quarter of an hour that holds now, at the latest. Raises PlatformError (VALIDATION).
    """
    today = local_date(zone, now_ms)
    month = today.replace(day=1)
    match name:
        case "today":
            bounds = (today, today)
        case "30d":
            bounds = (today - timedelta(days=29), today)
        case "month":
            bounds = (month, today)
        case "last_month":
            end = month - timedelta(days=1)
            bounds = (end.replace(day=1), end)
        case "12m":
            number = month.year * 12 + month.month - 1 - 11
            bounds = (date(number // 12, number % 12 + 1, 1), today)
        case "custom":
            bounds = (_date(first, today - timedelta(days=6), "from"), _date(last, today, "to"))
        case _:
            bounds = (today - timedelta(days=6), today)
    start, end = min(bounds[0], today), min(bounds[1], today)
    if start > end:
        raise PlatformError(VALIDATION, DATES, param="from")
    end_ms = min(day_of(zone, end).end_ms, now_ms + SPAN_MS - now_ms % SPAN_MS)
    found = Window(f"{start}/{end}", day_of(zone, start).start_ms, end_ms)
    if found.end_ms - found.start_ms > RANGE_MS_MAX:
        raise PlatformError(VALIDATION, DATES, param="from")
    return found


def fitting(window: Window, *, by_key: bool = False) -> list[Period]:
    """What the range can be cut into, so that a chart of it can be read, and is read in time."""
    length_days = -(-(window.end_ms - window.start_ms) // DAY_MS)
    found = []
    if length_days <= HOUR_DAYS_MAX:
        found.append(Period.HOUR)
    if length_days <= (KEY_DAYS_MAX if by_key else DAY_DAYS_MAX):
        found.append(Period.DAY)
    if length_days >= MONTH_DAYS_MIN:
        found.append(Period.MONTH)
    return found


def usual(window: Window, fits: list[Period]) -> Period:
    """Of what fits: hours of a day, else days, else months."""
    if window.end_ms - window.start_ms <= 2 * DAY_MS:
        return Period.HOUR
    return Period.DAY if Period.DAY in fits else Period.MONTH


def _date(text: str, otherwise: date, param: str) -> date:
    try:
        found = date.fromisoformat(text) if text else otherwise
    except ValueError as error:
        raise PlatformError(VALIDATION, DATES, param=param) from error
    if found.year not in YEARS:
        raise PlatformError(VALIDATION, DATES, param=param)
    return found
