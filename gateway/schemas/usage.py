"""What GET /v1/usage is asked and answers."""

from datetime import datetime
from enum import StrEnum
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

from billing.calendar import check_time_zone
from billing.rollups import SPAN_MS
from billing.usage import DAY_MS, Dimension, Period, UsageQuery, check_query
from core.errors import VALIDATION, PlatformError

LINES_DEFAULT, LINES_MAX = 1_000, 10_000
DAYS_DEFAULT = 30
TEXT_CHARS_MAX = 1_000


class Format(StrEnum):
    JSON = "json"
    CSV = "csv"
    JSONL = "jsonl"


class Range(BaseModel):
    """Of whom, and when. Times are ISO 8601 (in time_zone, if they name no offset) or seconds since 1970, and are
    widened to quarters of an hour.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    scope: Literal["key", "workspace"] = Field(default="key", description="workspace needs the scope usage:read.")
    start: str | None = Field(default=None, alias="from", max_length=TEXT_CHARS_MAX, description="30 days before `to`.")
    end: str | None = Field(default=None, alias="to", max_length=TEXT_CHARS_MAX, description="Now.")
    time_zone: str = Field(default="UTC", max_length=64, description="An IANA name: days and months are its.")


class UsageParameters(Range):
    group_by: str = Field(
        default="day",
        max_length=TEXT_CHARS_MAX,
        description="Comma-separated: one of hour, day, month; and tier, key, workspace. Empty: one sum.",
    )
    format: Format = Format.JSON
    limit: int = Field(default=LINES_DEFAULT, ge=1, le=LINES_MAX, description="Lines in one answer; JSON only.")
    cursor: str | None = Field(default=None, max_length=TEXT_CHARS_MAX, description="`next` of the answer before.")
    latency: bool = Field(default=False, description="Also tell quantiles of the latencies; JSON only.")


class RequestParameters(Range):
    format: Literal["csv", "jsonl"] = "jsonl"


class UsageGroup(BaseModel):
    """`cost` is `cost_nano` as a decimal string of the installation's currency."""

    start: str
    end: str
    workspace: str | None = None
    key: str | None = None
    tier: str | None = None
    requests: int
    failed_requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    total_tokens: int
    cost_nano: int
    cost: str


class Quantiles(BaseModel):
    p50: int | None
    p95: int | None
    p99: int | None


class LatencyReport(BaseModel):
    """From admission, ms; a quantile may be up to 10 % too high."""

    first_token_ms: Quantiles
    total_ms: Quantiles


class UsageReport(BaseModel):
    """`next` is the cursor of the following lines, null after the last."""

    object: Literal["list"] = "list"
    start: str = Field(serialization_alias="from")
    end: str = Field(serialization_alias="to")
    time_zone: str
    data: list[UsageGroup]
    next: str | None = None
    latency: LatencyReport | None = None


def usage_query(
    asked: Range, *, organisation: str, workspace: str | None, key_id: str | None, now_ms: int, group_by: str = ""
) -> UsageQuery:
    """Raises PlatformError (VALIDATION)."""
    check_time_zone(asked.time_zone)
    end_ms = now_ms if asked.end is None else _instant_ms(asked.end, asked.time_zone, "to")
    end_ms += -end_ms % SPAN_MS
    if asked.start is None:
        start_ms = end_ms - DAYS_DEFAULT * DAY_MS
    else:
        start_ms = _instant_ms(asked.start, asked.time_zone, "from")
        start_ms -= start_ms % SPAN_MS
    names = {name.strip() for name in group_by.split(",") if name.strip()}
    periods = [period for period in Period if period in names]
    unknown = names - set(Period) - set(Dimension)
    if unknown or len(periods) > 1:
        sentence = "`group_by` takes one of hour, day, month, and any of tier, key, workspace."
        raise PlatformError(VALIDATION, sentence, param="group_by")
    query = UsageQuery(
        organisation=organisation,
        from_ms=start_ms,
        to_ms=end_ms,
        workspace=workspace,
        key_id=key_id,
        period=periods[0] if periods else None,
        dimensions=tuple(dimension for dimension in Dimension if dimension in names),
        time_zone=asked.time_zone,
    )
    check_query(query)
    return query


def _instant_ms(text: str, time_zone: str, param: str) -> int:
    try:
        if text.isdigit():
            moment = datetime.fromtimestamp(int(text), ZoneInfo("UTC"))
        else:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=ZoneInfo(time_zone))
        return round(moment.timestamp() * 1000)
    except (ValueError, OverflowError, OSError) as error:
        sentence = f"`{param}` is ISO 8601 or seconds since 1970."
        raise PlatformError(VALIDATION, sentence, param=param) from error
