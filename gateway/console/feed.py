"""A list without bound, newest first: cut into pages in SQL by a cursor, the last row of the page before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from core.errors import VALIDATION, PlatformError
from gateway.console.table import Column, Row

FEED_ROWS = 50
CSV_ROWS_MAX = 10_000
YEARS = range(2000, 2200)


@dataclass(frozen=True, slots=True)
class Feed:
    """`older` is the cursor of the following page, empty on the last; `newest`: this is the first. `kept`: the filters
    that the query names.
    """

    id: str
    path: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    older: str = ""
    newest: bool = True
    kept: Mapping[str, str] = field(default_factory=dict)

    def link(self, **changes: str) -> str:
        """The same filters, and what is named; an empty text leaves a part out."""
        parts = {name: value for name, value in {**self.kept, **changes}.items() if value}
        return f"{self.path}?{urlencode(parts)}" if parts else self.path


def day_start_ms(text: str, zone: str, param: str, *, days_later: int = 0) -> int | None:
    """The beginning of a day such as 2026-11-22 in this zone; None for an empty text. Raises PlatformError."""
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise PlatformError(VALIDATION, "A day is written as 2026-11-22.", param=param) from error
    if day.year not in YEARS:
        raise PlatformError(VALIDATION, f"A year is from {YEARS[0]} to {YEARS[-1]}.", param=param)
    midnight = datetime.combine(day + timedelta(days=days_later), time.min, ZoneInfo(zone))
    return round(midnight.timestamp()) * 1_000
