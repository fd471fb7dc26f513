"""Calendar windows: contiguous, holding their moment, in every zone, across changes of the clock."""

import random
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest

from billing.calendar import HOUR_MS, check_time_zone, days, hour_start_ms, months, windows
from core.errors import PlatformError
from core.queue.rules import RuleKind

DAY, MONTH = RuleKind.SPEND_PER_DAY, RuleKind.TOKENS_PER_MONTH


def ms(text):
    return round(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("zone", "now", "current", "following", "hours"),
    [
        ("UTC", "2026-11-22T00:00Z", "2026-11-22", "2026-11-23", 24),
        ("UTC", "2026-12-31T23:59:59.999Z", "2026-12-31", "2027-01-01", 24),
        ("Europe/Rome", "2026-03-28T23:00Z", "2026-03-29", "2026-03-30", 23),  # clocks go forward
        ("Europe/Rome", "2026-10-25T12:00Z", "2026-10-25", "2026-10-26", 25),  # and back
        ("Asia/Kolkata", "2026-01-01T18:30Z", "2026-01-02", "2026-01-03", 24),
        ("America/Sao_Paulo", "2018-11-04T12:00Z", "2018-11-04", "2018-11-05", 23),  # midnight does not exist
        ("America/Havana", "2026-11-01T04:30Z", "2026-11-01", "2026-11-02", 25),  # midnight comes twice
        ("Pacific/Apia", "2011-12-30T09:59Z", "2011-12-29", "2011-12-31", 24),  # a day does not exist
        ("America/St_Johns", "2010-11-07T02:45Z", "2010-11-07", "2010-11-08", 25),  # set back into yesterday
    ],
)
def test_days(zone, now, current, following, hours):
    first, second = windows(DAY, zone, ms(now))
    assert (first.id, second.id) == (current, following)
    assert first.end_ms - first.start_ms == hours * HOUR_MS
    assert first.start_ms <= ms(now) < first.end_ms == second.start_ms


def test_months_follow_the_zone():
    first, second = windows(MONTH, "Asia/Tokyo", ms("2026-10-31T15:00Z"))
    assert (first.id, first.start_ms, first.end_ms) == ("2026-11", ms("2026-10-31T15:00Z"), ms("2026-11-30T15:00Z"))
    assert (second.id, second.start_ms) == ("2026-12", first.end_ms)
    assert windows(RuleKind.SPEND_PER_MONTH, "UTC", ms("2026-12-31T23:59Z"))[1].id == "2027-01"


def test_every_zone_any_moment():
    chances = random.Random(1)
    for zone in sorted(available_timezones() - {"localtime", "Factory"}):
        now_ms = chances.randrange(ms("1972-01-01T00:00Z"), ms("2060-01-01T00:00Z"))
        for kind, length in ((DAY, 10), (MONTH, 7)):
            first, second = windows(kind, zone, now_ms)
            assert first.start_ms <= now_ms < first.end_ms == second.start_ms < second.end_ms, zone
            local = datetime.fromtimestamp(first.start_ms / 1000, UTC).astimezone(ZoneInfo(zone))
            assert local.isoformat()[:length] == first.id, zone


def test_a_year_of_days_is_whole():
    start_ms, end_ms = ms("2026-01-01T05:00Z"), ms("2027-01-01T05:00Z")  # New York's year
    found = list(days("America/New_York", start_ms, end_ms))
    assert (len(found), found[0].start_ms, found[-1].end_ms) == (365, start_ms, end_ms)
    assert all(one.end_ms == other.start_ms for one, other in pairwise(found))
    assert [month.id for month in months("America/New_York", start_ms - 1, end_ms)] == [
        "2025-12",
        *(f"2026-{number:02d}" for number in range(1, 13)),
    ]


def test_hours_are_those_of_utc():
    assert hour_start_ms(ms("2026-01-01T10:59:59.999Z")) == ms("2026-01-01T10:00Z")


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../etc/passwd", "/etc/localtime", "localtime", "Europe", "x\0"])
def test_no_time_zone(name):
    with pytest.raises(PlatformError) as caught:
        check_time_zone(name)
    assert caught.value.param == "time_zone"


def test_a_time_zone():
    assert check_time_zone("Europe/Rome") == "Europe/Rome"
