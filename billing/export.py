"""Usage as files: CSV and JSON Lines, money as nano-units (integers, exact) and as decimal strings (for people)."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson
from sqlalchemy import select, tuple_

from billing.models import UsageRecord
from billing.money import show_amount
from billing.usage import UsageLine, UsageQuery, group_key, local_time, report
from core.db import Database

LINES_AT_ONCE = 2_000

LINE_FIELDS = (
    "start",
    "end",
    "workspace",
    "key",
    "tier",
    "requests",
    "failed_requests",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "total_tokens",
    "cost_nano",
    "cost",
)
RECORD_FIELDS = (
    "request_id",
    "admitted",
    "workspace",
    "key",
    "tier",
    "kind",
    "outcome",
    "streamed",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cost_nano",
    "cost",
    "price_version",
)


def shown_line(line: UsageLine, time_zone: str) -> dict[str, Any]:
    """One group as callers see it; without the dimensions that it was not grouped by."""
    shown = {
        "start": local_time(line.start_ms, time_zone),
        "end": local_time(line.end_ms, time_zone),
        "workspace": line.workspace,
        "key": line.key_id,
        "tier": line.tier,
        "requests": line.requests,
        "failed_requests": line.failed,
        "prompt_tokens": line.prompt_tokens,
        "completion_tokens": line.completion_tokens,
        "cached_tokens": line.cached_tokens,
        "total_tokens": line.prompt_tokens + line.completion_tokens,
        "cost_nano": line.cost_nano,
        "cost": show_amount(line.cost_nano),
    }
    return {name: value for name, value in shown.items() if value is not None}


def line_pages(database: Database, query: UsageQuery) -> Iterator[list[dict[str, Any]]]:
    """All lines, page by page, each page in a transaction of its own: a slow reader holds no connection."""
    after = None
    while True:
        with database.reading() as session:
            lines = report(session, query, after=after, count=LINES_AT_ONCE)
        if lines:
            yield [shown_line(line, query.time_zone) for line in lines]
        if len(lines) < LINES_AT_ONCE:
            return
        after = group_key(lines[-1])


def record_pages(database: Database, query: UsageQuery) -> Iterator[list[dict[str, Any]]]:
    """Every single request in the order of admission, page by page; grouping is ignored."""
    after: tuple[int, str] = (query.from_ms, "")
    while True:
        records = _records_after(database, query, after)
        if records:
            yield [shown_record(record, query.time_zone) for record in records]
        if len(records) < LINES_AT_ONCE:
            return
        after = (records[-1].admitted_ms, records[-1].request_id)


def _records_after(database: Database, query: UsageQuery, after: tuple[int, str]) -> list[UsageRecord]:
    found = select(UsageRecord).where(
        UsageRecord.organisation == query.organisation,
        UsageRecord.admitted_ms >= after[0],
        UsageRecord.admitted_ms < query.to_ms,
        tuple_(UsageRecord.admitted_ms, UsageRecord.request_id) > after,
    )
    if query.workspace is not None:
        found = found.where(UsageRecord.workspace == query.workspace)
    if query.key_id is not None:
        found = found.where(UsageRecord.key_id == query.key_id)
    found = found.order_by(UsageRecord.admitted_ms, UsageRecord.request_id).limit(LINES_AT_ONCE)
    with database.reading() as session:
        return list(session.scalars(found))


def shown_record(record: UsageRecord, time_zone: str) -> dict[str, Any]:
    """One request as callers see it."""
    return {
        "request_id": record.request_id,
        "admitted": local_time(record.admitted_ms, time_zone),
        "workspace": record.workspace,
        "key": record.key_id,
        "tier": record.tier,
        "kind": record.kind,
        "outcome": record.outcome,
        "streamed": record.streamed,
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "cached_tokens": record.cached_tokens,
        "cost_nano": record.cost_nano,
        "cost": show_amount(record.cost_nano),
        "price_version": record.price_version,
    }


def csv_page(rows: Iterable[Mapping[str, Any]], fields: tuple[str, ...], *, header: bool) -> bytes:
    """RFC 4180; what a row does not have is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, restval="", lineterminator="\r\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def jsonl_page(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
