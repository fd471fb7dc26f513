"""Calendar days and months of a time zone as spans of milliseconds, also across changes of the clock.

A day begins at the first instant whose local date is that day: not always midnight, and some days do not exist. Days
and months follow one another without a gap, whatever the zone does.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import count, pairwise
from zoneinfo import ZoneInfo, available_timezones

from core.errors import VALIDATION, PlatformError
from core.queue.rules import RuleKind, Window

HOUR_MS = 3_600_000
DEFAULT_ZONE = "UTC"
_OF_THE_MACHINE = frozenset({"localtime", "Factory"})  # their meaning depends on where the process runs


def check_time_zone(name: str) -> str:
    """The name again, if it is one of the IANA data base; raises PlatformError (VALIDATION)."""
    if name in _OF_THE_MACHINE or name not in available_timezones():
        raise PlatformError(VALIDATION, f"{name!r} is no IANA time zone such as Europe/Rome.", param="time_zone")
    return name


def windows(kind: RuleKind, time_zone: str, now_ms: int) -> tuple[Window, Window]:
    """The window of a calendar rule that holds now_ms, and the one after it."""
    following = _days if kind is RuleKind.SPEND_PER_DAY else _months
    found = (window for window in following(time_zone, now_ms) if window.end_ms > now_ms)
    return next(found), next(found)


def days(time_zone: str, start_ms: int, end_ms: int) -> Iterator[Window]:
    """Every day that shares an instant with [start_ms, end_ms), in order."""
    return _within(_days(time_zone, start_ms), start_ms, end_ms)


def months(time_zone: str, start_ms: int, end_ms: int) -> Iterator[Window]:
    """Every month that shares an instant with [start_ms, end_ms), in order."""
    return _within(_months(time_zone, start_ms), start_ms, end_ms)


def hour_start_ms(at_ms: int) -> int:
    """The UTC hour that holds at_ms."""
    return at_ms - at_ms % HOUR_MS


def _within(following: Iterator[Window], start_ms: int, end_ms: int) -> Iterator[Window]:
    for window in following:
        if window.start_ms >= end_ms:
            return
        if window.end_ms > start_ms:
            yield window


def _days(time_zone: str, at_ms: int) -> Iterator[Window]:
    """From the day before at_ms on, without end; a clock set back may bring yesterday's date once more."""
    first = _local_date(time_zone, at_ms) - timedelta(days=1)
    return _windows(time_zone, (first + timedelta(days=number) for number in count()), 10)


def _months(time_zone: str, at_ms: int) -> Iterator[Window]:
    first = _local_date(time_zone, at_ms) - timedelta(days=1)
    numbers = count(first.year * 12 + first.month - 1)
    return _windows(time_zone, (date(number // 12, number % 12 + 1, 1) for number in numbers), 7)


def _windows(time_zone: str, firsts: Iterator[date], id_length: int) -> Iterator[Window]:
    zone = ZoneInfo(time_zone)
    for first, following in pairwise(firsts):
        window = Window(first.isoformat()[:id_length], _begins_ms(zone, first), _begins_ms(zone, following))
        if window.end_ms > window.start_ms:  # else the zone skipped it
            yield window


def _begins_ms(zone: ZoneInfo, day: date) -> int:
    """Of a midnight that the clock skips, fold 0 is the instant of the change; of one that comes twice, the first."""
    return round(datetime(day.year, day.month, day.day, tzinfo=zone, fold=0).timestamp()) * 1000


def _local_date(time_zone: str, at_ms: int) -> date:
    return datetime.fromtimestamp(at_ms // 1000, UTC).astimezone(ZoneInfo(time_zone)).date()
