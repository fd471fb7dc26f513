"""Usage: sums over any range, by time and by tier, workspace or key; as a chart, a table and files."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from sqlalchemy.orm import Session
from starlette.responses import Response, StreamingResponse

from billing.export import LINE_FIELDS, csv_page, jsonl_page, line_pages
from billing.usage import (
    LATENCY_RANGE_MS_MAX,
    Dimension,
    Latencies,
    Period,
    UsageLine,
    UsageQuery,
    latencies,
    periods_of,
    report,
)
from core.catalog import NANO_PER_UNIT
from core.queue.rules import Window
from gateway.accounts.labels import key_names, workspace_names
from gateway.accounts.roles import Permission
from gateway.console.charts import day_hour_label, day_label, hour_label, month_label, stacked
from gateway.console.desk import Console
from gateway.console.figures import seen_by
from gateway.console.formats import count, money
from gateway.console.pages import HEADERS
from gateway.console.ranges import RANGES, fitting, usual, window_of
from gateway.console.table import Column, Row, Table, TableAsked, make_table
from gateway.console.visitor import Place

LINES_MAX = 3_000
DEFAULT_RANGE = "7d"
GROUPS: Mapping[str, str] = MappingProxyType({"tier": "Tier", "workspace": "Workspace", "key": "Key", "none": "None"})
MEASURES: Mapping[str, str] = MappingProxyType({"money": "Money", "tokens": "Tokens", "requests": "Requests"})
PERIODS: Mapping[str, str] = MappingProxyType({"hour": "Hour", "day": "Day", "month": "Month"})
MEDIA_TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}
SUMS = ("requests", "failed", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_nano")


class UsageAsked(TableAsked):
    """`rows`: lines of each period, or sums over the whole range."""

    range: str = Field(default=DEFAULT_RANGE, pattern=f"^({'|'.join(RANGES)})$")
    first: str = Field(default="", alias="from", max_length=10)
    last: str = Field(default="", alias="to", max_length=10)
    grain: str = Field(default="", pattern="^(|hour|day|month)$")
    group: str = Field(default="tier", pattern="^(tier|workspace|key|none)$")
    measure: str = Field(default="money", pattern="^(money|tokens|requests)$")
    rows: str = Field(default="sums", pattern="^(sums|lines)$")
    format: str = Field(default="html", pattern="^(html|csv|jsonl)$")


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What was asked for, made to fit."""

    asked: UsageAsked
    window: Window
    fits: list[Period]
    period: Period
    query: UsageQuery

    @property
    def by_time(self) -> bool:
        return self.asked.rows == "lines" or self.asked.group == "none"

    @property
    def exported(self) -> UsageQuery:
        """The lines of the table."""
        return self.query if self.by_time else replace(self.query, period=None)


@dataclass(frozen=True, slots=True)
class _Found:
    lines: list[UsageLine]
    sums: list[UsageLine]
    total: Row
    waits: Latencies | None
    names: Mapping[str, str]
    cut: bool


def usage_router(console: Console) -> APIRouter:
    router, work = console.router(), _Usage(console)

    @router.get("/o/{organisation}/usage")
    async def show(request: Request, organisation: str, asked: Annotated[UsageAsked, Query()]) -> Response:
        place = await console.enter(request, organisation, Permission.USAGE_READ)
        chosen = work.choose(place, asked)
        if asked.format != "html":
            return await work.file(chosen)
        found = await console.read(lambda session: work.find(session, place, chosen))
        return await console.page(request, "pages/usage.html", work.context(place, chosen, found), place=place)

    return router


class _Usage:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._clock = console.services.clock

    def choose(self, place: Place, asked: UsageAsked) -> _Chosen:
        window = window_of(asked.range, asked.first, asked.last, place.zone, self._clock.now_ms())
        fits = fitting(window, by_key=asked.group == "key")
        period = Period(asked.grain) if asked.grain in fits else usual(window, fits)
        query = replace(
            seen_by(place).query(window.start_ms, window.end_ms),
            period=period,
            dimensions=() if asked.group == "none" else (Dimension(asked.group),),
        )
        return _Chosen(asked, window, fits, period, query)

    def find(self, session: Session, place: Place, chosen: _Chosen) -> _Found:
        """At most six queries."""
        lines = report(session, chosen.query, count=LINES_MAX + 1)
        cut = len(lines) > LINES_MAX
        if cut or not chosen.query.dimensions:
            sums = report(session, replace(chosen.query, period=None), count=LINES_MAX)
        else:
            sums = list(_summed(chosen, lines))
        total = _total(report(session, replace(chosen.query, period=None, dimensions=()), count=1) if cut else sums)
        short = chosen.window.end_ms - chosen.window.start_ms <= LATENCY_RANGE_MS_MAX
        waits = latencies(session, replace(chosen.query, period=None, dimensions=())) if short and sums else None
        names: Mapping[str, str] = {}
        if chosen.asked.group == "workspace":
            names = workspace_names(session, place.id)
        elif chosen.asked.group == "key" and place.somewhere(Permission.KEYS_READ):
            names = key_names(session, place.id, {line.key_id for line in sums if line.key_id is not None})
        return _Found(lines[:LINES_MAX], sums, total, waits, names, cut)

    def context(self, place: Place, chosen: _Chosen, found: _Found) -> dict[str, Any]:
        asked = chosen.asked
        return {
            "asked": asked,
            "chosen": chosen,
            "options": {
                "range": list(RANGES.items()),
                "grain": [(each.value, PERIODS[each.value]) for each in chosen.fits],
                "group": list(GROUPS.items()),
                "measure": list(MEASURES.items()),
            },
            "kept": _kept(asked),
            "table": _table(place, chosen, found),
            "total": found.total,
            "cut": found.cut,
            "lines_max": LINES_MAX,
            "waits": found.waits,
            "chart": _chart(place, chosen, found) if found.lines else None,
        }

    async def file(self, chosen: _Chosen) -> Response:
        """Every line of the table, whatever its filter, sorting and length."""
        pages = line_pages(self._console.services.database, chosen.exported)
        first = await self._console.in_thread(lambda: next(pages, None))
        kind = chosen.asked.format
        name = f"usage-{chosen.window.id.replace('/', '-to-')}.{kind}"
        headers = {**HEADERS, "content-disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(self._bodies(first, pages, kind), media_type=MEDIA_TYPES[kind], headers=headers)

    async def _bodies(
        self, page: list[dict[str, Any]] | None, pages: Iterator[list[dict[str, Any]]], kind: str
    ) -> AsyncIterator[bytes]:
        if kind == "csv":
            yield csv_page((), LINE_FIELDS, header=True)
        while page is not None:
            yield csv_page(page, LINE_FIELDS, header=False) if kind == "csv" else jsonl_page(page)
            page = await self._console.in_thread(lambda: next(pages, None))


def _kept(asked: UsageAsked) -> dict[str, str]:
    said = asked.model_dump(include={"range", "first", "last", "grain", "group", "measure", "rows"}, by_alias=True)
    defaults = UsageAsked().model_dump(by_alias=True)
    return {name: value for name, value in said.items() if value != defaults[name]}


def _summed(chosen: _Chosen, lines: list[UsageLine]) -> Iterator[UsageLine]:
    """The same groups without periods, in the order in which they come first."""
    groups: dict[str, list[UsageLine]] = {}
    for line in lines:
        groups.setdefault(_group(line), []).append(line)
    for members in groups.values():
        summed: dict[str, Any] = {name: sum(getattr(line, name) for line in members) for name in (*SUMS, "loss_nano")}
        yield replace(members[0], start_ms=chosen.window.start_ms, end_ms=chosen.window.end_ms, **summed)


def _total(lines: list[UsageLine]) -> Row:
    return {name: sum(getattr(line, name) for line in lines) for name in SUMS}


def _group(line: UsageLine) -> str:
    return line.workspace or line.key_id or line.tier or ""


def _table(place: Place, chosen: _Chosen, found: _Found) -> Table:
    title = GROUPS[chosen.asked.group]
    columns = []
    if chosen.by_time:
        columns.append(Column("start", PERIODS[chosen.period], "cell", lambda row: row["start_ms"]))
    if chosen.asked.group != "none":
        columns.append(Column("group", title, "cell", lambda row: row["name"]))
    columns += [
        Column("requests", "Requests", "number"),
        Column("failed", "Failed", "number"),
        Column("prompt_tokens", "Input", "number"),
        Column("cached_tokens", "Of it cached", "number"),
        Column("completion_tokens", "Output", "number"),
        Column("cost_nano", "Cost", "money"),
    ]
    if not chosen.by_time:
        columns.append(Column("share", "Share", "share"))
    cost_nano = found.total["cost_nano"]
    shown = found.lines if chosen.by_time else sorted(found.sums, key=lambda line: (-line.cost_nano, _group(line)))
    rows: list[dict[str, Any]] = [
        {
            "id": _group(line),
            "name": found.names.get(_group(line), _group(line)),
            "start_ms": line.start_ms,
            "label": _labels(chosen)(line.start_ms, place.zone),
            "share": line.cost_nano / cost_nano if cost_nano else 0.0,
            **{name: getattr(line, name) for name in SUMS},
        }
        for line in shown
    ]
    return make_table("usage", f"{place.path}/usage", columns, rows, chosen.asked, _kept(chosen.asked))


def _labels(chosen: _Chosen) -> Callable[[int, str], str]:
    if chosen.period is Period.MONTH:
        return month_label
    return day_label if chosen.period is Period.DAY else day_hour_label


def _chart(place: Place, chosen: _Chosen, found: _Found) -> dict[str, Any]:
    """All periods of the range, also those without usage."""
    one_day = chosen.asked.range == "today"
    label = hour_label if one_day and chosen.period is Period.HOUR else _labels(chosen)
    periods = [(window.start_ms, label(window.start_ms, place.zone)) for window in periods_of(chosen.query)]
    measure: Callable[[UsageLine], int] = {
        "money": lambda line: line.cost_nano,
        "tokens": lambda line: line.prompt_tokens + line.completion_tokens,
        "requests": lambda line: line.requests,
    }[chosen.asked.measure]
    values = [
        (line.start_ms, found.names.get(_group(line), _group(line)) or MEASURES[chosen.asked.measure], measure(line))
        for line in found.lines
    ]
    in_money = chosen.asked.measure == "money"
    return stacked(
        periods,
        values,
        unit=place.currency if in_money else "",
        scale=NANO_PER_UNIT if in_money else 1,
        show=money if in_money else count,
    )
