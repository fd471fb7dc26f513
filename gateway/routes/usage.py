"""GET /v1/usage and /v1/usage/requests: what a key or its workspace used, as JSON, CSV or JSON Lines."""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from billing.export import LINE_FIELDS, RECORD_FIELDS, csv_page, jsonl_page, line_pages, record_pages, shown_line
from billing.usage import GroupKey, Latencies, UsageLine, UsageQuery, group_key, latencies, local_time, report
from core.db import DatabaseUnavailableError
from core.errors import NOT_ALLOWED, UNAVAILABLE, VALIDATION, PlatformError
from gateway.accounts.scopes import INFERENCE, SUFFICES, USAGE_READ
from gateway.principal import Principal
from gateway.routes.access import authenticate_now
from gateway.schemas.answers import ERROR_RESPONSES
from gateway.schemas.usage import (
    Format,
    LatencyReport,
    Quantiles,
    Range,
    RequestParameters,
    UsageGroup,
    UsageParameters,
    UsageReport,
    usage_query,
)
from gateway.services import Services

ERRORS: dict[int | str, dict[str, Any]] = {status: ERROR_RESPONSES[status] for status in (401, 403, 422, 503)}
MEDIA_TYPES = {Format.CSV: "text/csv; charset=utf-8", Format.JSONL: "application/jsonl"}
FILES = {"content": {kind.partition(";")[0]: {"schema": {"type": "string"}} for kind in MEDIA_TYPES.values()}}
SHARES = (0.5, 0.95, 0.99)

Page = list[dict[str, Any]]
Answer = TypeVar("Answer")


def usage_router(services: Services) -> APIRouter:
    router = APIRouter(tags=["usage"], responses=ERRORS)

    @router.get("/v1/usage", operation_id="get_usage", responses={200: {"model": UsageReport, **FILES}})
    async def get_usage(request: Request, asked: Annotated[UsageParameters, Query()]) -> Response:
        """Sums by hour, day or month, key, workspace and tier: what the ledger was charged with, to the nano-unit. A
        time is complete 15 minutes after it ended.
        """
        caller = await _caller(services, request, asked)
        query = _query(asked, caller, services.clock.now_ms(), asked.group_by)
        if asked.format is not Format.JSON:
            return await _file(line_pages(services.database, query), LINE_FIELDS, asked.format)
        after = None if asked.cursor is None else _read_cursor(asked.cursor)
        lines, measured = await _from_sql(lambda: _read(services, query, after, asked))
        found = _report(query, lines, measured, asked.limit)
        return Response(found.model_dump_json(by_alias=True), media_type="application/json")

    @router.get(
        "/v1/usage/requests", operation_id="get_usage_requests", response_class=Response, responses={200: FILES}
    )
    async def get_usage_requests(request: Request, asked: Annotated[RequestParameters, Query()]) -> Response:
        """Every settled request with its tokens and its cost, in the order of admission."""
        caller = await _caller(services, request, asked)
        query = _query(asked, caller, services.clock.now_ms())
        return await _file(record_pages(services.database, query), RECORD_FIELDS, Format(asked.format))

    return router


async def _caller(services: Services, request: Request, asked: Range) -> Principal:
    """A key sees itself; its workspace too, if it may read usage."""
    caller = await authenticate_now(services.principals, services.keeper, request.scope, None)
    scopes = caller.principal.scopes
    allowed = scopes & SUFFICES[USAGE_READ] or (INFERENCE in scopes and asked.scope == "key")
    if not allowed:
        raise PlatformError(NOT_ALLOWED, f"This key lacks the scope {USAGE_READ}.")
    return caller.principal


def _query(asked: Range, caller: Principal, now_ms: int, group_by: str = "") -> UsageQuery:
    return usage_query(
        asked,
        organisation=caller.organisation,
        workspace=caller.workspace,
        key_id=caller.key_id if asked.scope == "key" else None,
        now_ms=now_ms,
        group_by=group_by,
    )


def _read(
    services: Services, query: UsageQuery, after: GroupKey | None, asked: UsageParameters
) -> tuple[list[UsageLine], Latencies | None]:
    """One line more than was asked for tells whether there is a next page."""
    with services.database.reading() as session:
        lines = report(session, query, after=after, count=asked.limit + 1)
        return lines, latencies(session, query, SHARES) if asked.latency else None


def _report(query: UsageQuery, lines: list[UsageLine], measured: Latencies | None, limit: int) -> UsageReport:
    shown = lines[:limit]
    return UsageReport(
        start=local_time(query.from_ms, query.time_zone),
        end=local_time(query.to_ms, query.time_zone),
        time_zone=query.time_zone,
        data=[UsageGroup(**shown_line(line, query.time_zone)) for line in shown],
        next=_cursor(group_key(shown[-1])) if len(lines) > limit else None,
        latency=None if measured is None else _latency(measured),
    )


def _latency(measured: Latencies) -> LatencyReport:
    def quantiles(found: Mapping[float, int | None]) -> Quantiles:
        p50, p95, p99 = (found[share] for share in SHARES)
        return Quantiles(p50=p50, p95=p95, p99=p99)

    return LatencyReport(first_token_ms=quantiles(measured.first_token_ms), total_ms=quantiles(measured.total_ms))


def _cursor(key: GroupKey) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(key)).decode()


def _read_cursor(text: str) -> GroupKey:
    try:
        start_ms, *names = orjson.loads(base64.urlsafe_b64decode(text))
    except (binascii.Error, TypeError, ValueError) as error:
        raise PlatformError(VALIDATION, "`cursor` is the `next` of an answer.", param="cursor") from error
    if not isinstance(start_ms, int) or not all(isinstance(name, str) for name in names):
        raise PlatformError(VALIDATION, "`cursor` is the `next` of an answer.", param="cursor")
    return (start_ms, *names)


async def _file(pages: Iterator[Page], fields: tuple[str, ...], chosen: Format) -> Response:
    """Page by page as the caller reads: each is read from SQL when the one before is sent, the first before the
    answer begins.
    """
    first = await _from_sql(lambda: next(pages, None))
    return StreamingResponse(
        _bodies(first, pages, fields, chosen),
        media_type=MEDIA_TYPES[chosen],
        headers={"content-disposition": f'attachment; filename="usage.{chosen}"'},
    )


async def _bodies(
    first: Page | None, pages: Iterator[Page], fields: tuple[str, ...], chosen: Format
) -> AsyncIterator[bytes]:
    if chosen is Format.CSV:
        yield csv_page((), fields, header=True)
    page = first
    while page is not None:
        yield csv_page(page, fields, header=False) if chosen is Format.CSV else jsonl_page(page)
        page = await _from_sql(lambda: next(pages, None))


async def _from_sql(work: Callable[[], Answer]) -> Answer:
    try:
        return await asyncio.to_thread(work)
    except DatabaseUnavailableError as error:
        raise PlatformError(UNAVAILABLE, "Usage cannot be read at the moment.", retry_after_s=1) from error
