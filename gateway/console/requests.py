"""Requests: every settled one, newest first, filtered, in pages and as a file."""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session
from starlette.responses import RedirectResponse, Response, StreamingResponse

from billing.export import csv_page, shown_record
from billing.models import UsageRecord
from billing.requests import (
    FAILED_ANY,
    FINISHED,
    Cursor,
    RequestFilter,
    RequestPage,
    list_requests,
    request_pages,
)
from core.errors import NOT_FOUND, VALIDATION, PlatformError
from core.queue.base import Outcome
from gateway.accounts.labels import first_keys, key_names, workspace_names
from gateway.accounts.roles import Permission
from gateway.console.desk import Console
from gateway.console.figures import seen_by
from gateway.console.pages import HEADERS
from gateway.console.ranges import CUSTOM, window_of
from gateway.console.request import find
from gateway.console.table import PAGE_ROWS
from gateway.console.visitor import Place

EXPORT_MAX = 100_000
KEYS_SHOWN_MAX = 500
ID_CHARS_MAX = 64
MS_DIGITS_MAX = 15
HOUR_MS = 3_600_000
RANGES: Mapping[str, str] = MappingProxyType(
    {"": "Any time", "1h": "Last hour", "24h": "Last 24 hours", "7d": "Last 7 days", "30d": "Last 30 days"}
    | {CUSTOM: "Custom"}
)
HOURS = {"1h": 1, "24h": 24}
OUTCOMES: Mapping[str, str] = MappingProxyType(
    {"": "Any outcome", FINISHED: "Finished", Outcome.CANCELLED.value: "Cancelled", FAILED_ANY: "Failed"}
)
EXPORT_FIELDS = (
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
    "total_ms",
    "cost_nano",
    "cost",
    "price_version",
)


class RequestsAsked(BaseModel):
    """`after` is the cursor of the page before; `id` is looked up exactly."""

    tier: str = Field(default="", max_length=ID_CHARS_MAX)
    workspace: str = Field(default="", max_length=ID_CHARS_MAX)
    key: str = Field(default="", max_length=ID_CHARS_MAX)
    outcome: str = Field(default="", pattern=f"^({'|'.join(OUTCOMES)})$")
    range: str = Field(default="", pattern=f"^({'|'.join(RANGES)})$")
    first: str = Field(default="", alias="from", max_length=10)
    last: str = Field(default="", alias="to", max_length=10)
    id: str = Field(default="", max_length=2 * ID_CHARS_MAX)
    after: str = Field(default="", max_length=2 * ID_CHARS_MAX)
    format: str = Field(default="html", pattern="^(html|csv)$")


@dataclass(frozen=True, slots=True)
class _Found:
    page: RequestPage
    workspaces: Mapping[str, str]
    key_options: Mapping[str, str]
    keys: Mapping[str, str]


def requests_router(console: Console) -> APIRouter:
    router, work = console.router(), _Requests(console)

    @router.get("/o/{organisation}/requests")
    async def show(request: Request, organisation: str, asked: Annotated[RequestsAsked, Query()]) -> Response:
        place = await console.enter(request, organisation, Permission.USAGE_READ)
        wanted = work.filter(place, asked)
        if asked.format == "csv":
            return await work.file(wanted, place)
        sought = asked.id.strip()
        if sought and await work.known(place, sought):
            return RedirectResponse(f"{place.path}/requests/{quote(sought)}", 303, headers=HEADERS)
        found = await console.read(lambda session: work.find(session, place, asked, wanted))
        context = work.context(place, asked, found)
        return await console.page(request, "pages/requests.html", context, place=place)

    return router


class _Requests:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._clock = console.services.clock
        self._tiers = [tier.name for tier in console.services.catalog.tiers]

    def filter(self, place: Place, asked: RequestsAsked) -> RequestFilter:
        """Raises PlatformError (VALIDATION)."""
        found = RequestFilter(
            place.id, seen_by(place).workspaces, asked.tier, asked.workspace, asked.key, asked.outcome
        )
        now_ms = self._clock.now_ms()
        if asked.range in HOURS:
            return replace(found, from_ms=now_ms - HOURS[asked.range] * HOUR_MS)
        if asked.range:
            window = window_of(asked.range, asked.first, asked.last, place.zone, now_ms)
            return replace(found, from_ms=window.start_ms, to_ms=window.end_ms)
        return found

    async def known(self, place: Place, request_id: str) -> bool:
        try:
            await find(self._console, place, request_id)
        except PlatformError as error:
            if error.kind is not NOT_FOUND:
                raise
            return False
        return True

    def find(self, session: Session, place: Place, asked: RequestsAsked, wanted: RequestFilter) -> _Found:
        """Five queries at most."""
        seen = wanted.workspaces
        if asked.id.strip():
            page = RequestPage([], None)  # looked up before, and not found
        else:
            page = list_requests(session, wanted, _cursor(asked.after), PAGE_ROWS)
        workspaces = workspace_names(session, place.id)
        shown = {key: name for key, name in workspaces.items() if seen is None or key in seen}
        if not place.somewhere(Permission.KEYS_READ):
            return _Found(page, shown, {}, {})
        readable = place.workspaces(Permission.KEYS_READ)
        options = first_keys(session, place.id, readable, KEYS_SHOWN_MAX)
        keys = key_names(session, place.id, {record.key_id for record in page.records} - set(options))
        return _Found(page, shown, options, {**options, **keys})

    def context(self, place: Place, asked: RequestsAsked, found: _Found) -> dict[str, Any]:
        said = asked.model_dump(by_alias=True, exclude={"after", "format", "id"})
        kept = {name: value for name, value in said.items() if value}
        path = f"{place.path}/requests"
        following = found.page.following
        window = None
        if asked.range == CUSTOM:
            window = window_of(CUSTOM, asked.first, asked.last, place.zone, self._clock.now_ms()).id
        return {
            "asked": asked,
            "found": found,
            "window": window,
            "filtered": bool(kept),
            "options": {
                "tier": _options("Any tier", {name: name for name in self._tiers}, asked.tier),
                "workspace": _options("Any workspace", found.workspaces, asked.workspace),
                "key": _options("Any key", found.key_options, asked.key),
                "outcome": list(OUTCOMES.items()),
                "range": list(RANGES.items()),
            },
            "csv": f"{path}?{urlencode({**kept, 'format': 'csv'})}",
            "newest": f"{path}?{urlencode(kept)}" if asked.after else "",
            "older": f"{path}?{urlencode({**kept, 'after': f'{following[0]}-{following[1]}'})}" if following else "",
            "export_max": EXPORT_MAX,
        }

    async def file(self, wanted: RequestFilter, place: Place) -> Response:
        pages = request_pages(self._console.services.database, wanted, EXPORT_MAX)
        first = await self._console.in_thread(lambda: next(pages, None))
        headers = {**HEADERS, "content-disposition": 'attachment; filename="requests.csv"'}
        bodies = self._bodies(first, pages, place.zone)
        return StreamingResponse(bodies, media_type="text/csv; charset=utf-8", headers=headers)

    async def _bodies(
        self, page: list[UsageRecord] | None, pages: Iterator[list[UsageRecord]], zone: str
    ) -> AsyncIterator[bytes]:
        yield csv_page((), EXPORT_FIELDS, header=True)
        while page is not None:
            yield csv_page([_exported(record, zone) for record in page], EXPORT_FIELDS, header=False)
            page = await self._console.in_thread(lambda: next(pages, None))


def _exported(record: UsageRecord, zone: str) -> dict[str, Any]:
    return {**shown_record(record, zone), "total_ms": record.settled_ms - record.admitted_ms}


def _options(every: str, names: Mapping[str, str], chosen: str) -> list[tuple[str, str]]:
    """With what is chosen, also where the list does not have it."""
    known = names if not chosen or chosen in names else {**names, chosen: chosen}
    return [("", every), *known.items()]


def _cursor(text: str) -> Cursor | None:
    """Raises PlatformError (VALIDATION)."""
    if not text:
        return None
    at_ms, dash, request_id = text.partition("-")
    if not (at_ms.isascii() and at_ms.isdigit() and dash) or len(at_ms) > MS_DIGITS_MAX:
        raise PlatformError(VALIDATION, "This page of the list does not exist.", param="after")
    return int(at_ms), request_id
