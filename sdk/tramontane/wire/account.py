"""Requests about models, usage, limits and the key itself."""

from __future__ import annotations

from datetime import datetime
from typing import Optional, Sequence, Union

from tramontane.types import Identity, LimitList, Model, ModelList, UsageRecord, UsageReport
from tramontane.wire.calls import JSON_LINES, Call, query, reader, segment

Moment = Union[None, str, int, datetime]


def models_call() -> Call[ModelList]:
    return Call("GET", "/v1/models", reader(ModelList))


def model_call(model: str) -> Call[Model]:
    return Call("GET", f"/v1/models/{segment(model)}", reader(Model))


def identity_call() -> Call[Identity]:
    return Call("GET", "/v1/users/me", reader(Identity))


def limits_call() -> Call[LimitList]:
    return Call("GET", "/v1/limits", reader(LimitList))


def usage_call(
    *,
    scope: Optional[str],
    start: Moment,
    end: Moment,
    time_zone: Optional[str],
    group_by: Union[str, Sequence[str], None],
    limit: Optional[int],
    cursor: Optional[str],
    latency: Optional[bool],
) -> Call[UsageReport]:
    groups = group_by if group_by is None or isinstance(group_by, str) else ",".join(group_by)
    asked = query(
        scope=scope, time_zone=time_zone, group_by=groups, limit=limit, cursor=cursor, latency=latency
    ) + _range(start, end)
    return Call("GET", "/v1/usage", reader(UsageReport), query=asked)


def records_call(*, scope: Optional[str], start: Moment, end: Moment, time_zone: Optional[str]) -> Call[UsageRecord]:
    """The answer has one record in each line."""
    asked = query(format="jsonl", scope=scope, time_zone=time_zone) + _range(start, end)
    return Call("GET", "/v1/usage/requests", reader(UsageRecord), query=asked, accept=JSON_LINES)


def moment_text(moment: Moment) -> Optional[str]:
    """ISO 8601, or seconds since 1970. Raises ValueError for a datetime without a zone."""
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ValueError("give the datetime a time zone")
        return moment.isoformat()
    return None if moment is None else str(moment)


def _range(start: Moment, end: Moment) -> tuple[tuple[str, str], ...]:
    return query(**{"from": moment_text(start), "to": moment_text(end)})
