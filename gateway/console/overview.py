"""Overview: how today goes, beside last week; the last two weeks; what came last. Tiles and lists are live."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from billing.accounts import Available
from billing.usage import UsageLine
from core.catalog import NANO_PER_UNIT
from core.meter.credit import Level
from core.meter.refusals import RefusalEvent
from core.queue.rules import Window
from gateway.accounts.roles import Permission
from gateway.console.charts import day_label, hour_label, stacked
from gateway.console.desk import Console
from gateway.console.figures import (
    NEWEST,
    Figures,
    Seen,
    account_of,
    balance,
    figures,
    has_usage,
    newest_refusals,
    seen_by,
    two_weeks,
)
from gateway.console.formats import count, money
from gateway.console.live import EVERY_S, Parts
from gateway.console.visitor import Place
from gateway.desk import QUEUE_AWAY

ASKED_AGAIN_S = 10.0  # whether somebody who looks still may
FRESH_S = EVERY_S * 0.9
TILES, NEWEST_PART, BEGUN = "tiles", "newest", "begun"


@dataclass(frozen=True, slots=True)
class _Page:
    days: list[Window]
    lines: list[UsageLine]
    figures: Figures
    account: Available | None


def overview_router(console: Console) -> APIRouter:
    router, work = console.router(), _Overview(console)

    @router.get("/o/{organisation}")
    async def show(request: Request, organisation: str) -> Response:
        place = await console.enter(request, organisation, Permission.USAGE_READ)
        return await console.page(request, "pages/overview.html", await work.page(place), place=place)

    @router.get("/o/{organisation}/live")
    async def live(request: Request, organisation: str) -> Response:
        look = _Look(work, request, await console.enter(request, organisation, Permission.USAGE_READ))
        return console.live.response(look.parts)

    return router


class _Overview:
    """`_views`: one for all who see the same, for as long as one of them looks."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.clock = console.services.clock
        self._views: WeakValueDictionary[Seen, _View] = WeakValueDictionary()

    async def page(self, place: Place) -> dict[str, Any]:
        seen, now_ms = seen_by(place), self.clock.now_ms()
        pays = place.may(Permission.BILLING_READ)

        def read(session: Session) -> _Page | None:
            if not has_usage(session, seen):
                return None
            account = account_of(session, place.id) if pays else None
            return _Page(*two_weeks(session, seen, now_ms), figures(session, seen, now_ms), account)

        found = await self.console.read(read)
        refused = await self.refusals(seen)
        if found is None:
            return {"found": None, "refused": refused}
        level = await self._level(place.id) if pays else None
        day_ms = found.figures.day.start_ms
        return {
            "found": found.figures,
            "refused": refused,
            "spend": spend_chart(found.days, found.lines, place),
            "by_hour": hours_chart(found.figures, place.zone, now_ms),
            "balance": None if found.account is None else balance(found.account, level, found.lines, day_ms),
        }

    async def refusals(self, seen: Seen) -> Sequence[RefusalEvent] | None:
        """None: Redis does not answer."""
        try:
            return await newest_refusals(self.console.services.refusals, seen, NEWEST)
        except QUEUE_AWAY:
            return None

    def view(self, place: Place) -> "_View":
        seen = seen_by(place)
        found = self._views.get(seen)
        if found is None:
            found = self._views[seen] = _View(self, seen)
        return found

    async def _level(self, organisation: str) -> Level | None:
        try:
            return await self.console.services.credit.level(organisation)
        except QUEUE_AWAY:
            return None


class _View:
    """The live parts as all see them who may see the same; read once for all of them."""

    def __init__(self, work: _Overview, seen: Seen) -> None:
        self._work = work
        self._seen = seen
        self._reading = asyncio.Lock()
        self._known: Figures | None = None
        self._parts: Parts = {}
        self._read_s = float("-inf")

    async def parts(self, request: Request, place: Place) -> Parts:
        async with self._reading:
            now_s = self._work.clock.monotonic_s()
            if now_s - self._read_s >= FRESH_S:
                self._parts = await self._read(request, place)
                self._read_s = now_s
        return self._parts

    async def _read(self, request: Request, place: Place) -> Parts:
        console, now_ms = self._work.console, self._work.clock.now_ms()

        def read(session: Session) -> Figures | None:
            if self._known is None and not has_usage(session, self._seen):
                return None
            return figures(session, self._seen, now_ms, self._known)

        found = self._known = await console.read(read)
        if found is None:
            return {}
        context = {"found": found, "refused": await self._work.refusals(self._seen)}
        return {
            TILES: await console.fragment(request, "parts/overview_tiles.html", context, place),
            NEWEST_PART: await console.fragment(request, "parts/overview_newest.html", context, place),
            BEGUN: await console.fragment(request, "parts/overview_begun.html", {}, place),
        }


class _Look:
    """One stream: who looks is asked again from time to time."""

    def __init__(self, work: _Overview, request: Request, place: Place) -> None:
        self._work = work
        self._request = request
        self._place = place
        self._view = work.view(place)
        self._asked_s = work.clock.monotonic_s()

    async def parts(self) -> Parts:
        now_s = self._work.clock.monotonic_s()
        if now_s - self._asked_s >= ASKED_AGAIN_S:
            self._place = await self._work.console.enter(self._request, self._place.id, Permission.USAGE_READ)
            self._view = self._work.view(self._place)
            self._asked_s = now_s
        return await self._view.parts(self._request, self._place)


def spend_chart(days: Sequence[Window], lines: Sequence[UsageLine], place: Place) -> dict[str, Any]:
    """Of each day, by tier."""
    return stacked(
        [(window.start_ms, day_label(window.start_ms, place.zone)) for window in days],
        [(line.start_ms, line.tier or "", line.cost_nano) for line in lines],
        unit=place.currency,
        scale=NANO_PER_UNIT,
        show=money,
    )


def hours_chart(found: Figures, zone: str, now_ms: int) -> dict[str, Any]:
    """Of today's requests, those that failed apart."""
    hours = [(line.start_ms, "Failed", line.failed) for line in found.hours if line.failed]
    hours += [(line.start_ms, "Answered or cancelled", line.requests - line.failed) for line in found.hours]
    starts = range(found.day.start_ms, max(now_ms, found.day.start_ms) + 1, 3_600_000)
    known = {line.start_ms for line in found.hours}
    shown = sorted(known | set(starts))
    return stacked([(at_ms, hour_label(at_ms, zone)) for at_ms in shown], hours, unit="", scale=1, show=count)
