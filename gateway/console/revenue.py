"""Revenue of the whole installation, for operators: by tier, organisation and month, beside the ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import Response

from billing.days import DAY_MS, day_start_ms, month_start_ms
from billing.money import show_amount
from billing.revenue import (
    DAYS_MAX,
    Booked,
    Revenue,
    Span,
    booked_in,
    check_span,
    revenue_by_organisation,
    revenue_by_tier,
    total_of,
)
from core.errors import VALIDATION, PlatformError
from gateway.accounts.models import Organisation
from gateway.console.desk import Console
from gateway.console.formats import day, money
from gateway.console.listing import answer_table
from gateway.console.table import Asked, Column, Row, Table, TableAsked, make_table

PATH = "/console/operator/revenue"
ORGANISATIONS_MAX = 20_000  # in the table; what is beyond them is one row
TOP = 15  # organisations on the page as it opens
YEAR_MONTHS = 12
YEARS = range(1970, 2200)
PERIODS = {"month": "This month", "last": "Last month", "year": "12 months"}
OTHERS = "All others"
_MONEY = ("cost_nano", "loss_nano")

_SUMS = (
    Column("requests", "Requests", "number"),
    Column("prompt_tokens", "Input tokens", "number"),
    Column("completion_tokens", "Output tokens", "number"),
    Column("cost_nano", "Charged", "money"),
    Column("loss_nano", "Not charged", "money"),
    Column("share", "Share", "share"),
)
TIER_COLUMNS = (Column("tier", "Tier"), *_SUMS)
ORGANISATION_COLUMNS = (
    Column("name", "Organisation", "cell", lambda row: row["name"]),
    Column("plan", "Plan"),
    *_SUMS,
)


class RevenueAsked(TableAsked):
    """`about`: the table that sort, filter and page mean. `everybody`: not only the TOP organisations."""

    period: str = Field(default="month", pattern="^(month|last|year|custom)$")
    first: str = Field(default="", max_length=10)
    last: str = Field(default="", max_length=10)
    everybody: bool = False
    about: str = Field(default="organisations", pattern="^(organisations|tiers)$")


@dataclass(frozen=True, slots=True)
class Found:
    """What SQL said."""

    lines: Sequence[Revenue]
    organisations: Sequence[Row]
    booked: Booked


def revenue_router(console: Console) -> APIRouter:
    router = console.router()
    clock, unit = console.services.clock, console.services.catalog.currency

    @router.get("/operator/revenue")
    async def show(request: Request, asked: Annotated[RevenueAsked, Query()]) -> Response:
        visitor = await console.operator(request)
        span = _span(asked, clock.now_ms())
        found = await console.read(lambda session: _read(session, span))
        total = total_of(found.lines, span.from_ms)
        tables = {
            "tiers": _table("tiers", TIER_COLUMNS, _tiers(found.lines, total), asked),
            "organisations": _organisations(found, total, asked),
        }
        context = {
            "unit": unit,
            "asked": asked,
            "periods": PERIODS,
            "first": day(span.from_ms, "UTC"),
            "last": day(span.to_ms - DAY_MS, "UTC"),
            "total": total,
            "booked": found.booked,
            "elsewhere_nano": total.cost_nano + total.loss_nano - found.booked.usage_nano,
            "tiers": tables["tiers"],
            "chart": _chart(found.lines, span, unit),
        }
        table = tables[asked.about] if asked.format == "csv" else tables["organisations"]
        return await answer_table(console, request, "pages/revenue.html", table, visitor=visitor, context=context)

    return router


def _span(asked: RevenueAsked, now_ms: int) -> Span:
    """Raises PlatformError (VALIDATION)."""
    if asked.period == "last":
        return Span(month_start_ms(now_ms, -1), month_start_ms(now_ms))
    if asked.period == "year":
        return Span(month_start_ms(now_ms, 1 - YEAR_MONTHS), month_start_ms(now_ms, 1))
    if asked.period == "month":
        return Span(month_start_ms(now_ms), month_start_ms(now_ms, 1))
    last_ms = _day_ms(asked.last, "last") if asked.last else day_start_ms(now_ms)
    first_ms = _day_ms(asked.first, "first") if asked.first else month_start_ms(last_ms)
    return check_span(Span(first_ms, last_ms + DAY_MS))


def _day_ms(text: str, param: str) -> int:
    try:
        found = date.fromisoformat(text)
    except ValueError as error:
        raise PlatformError(VALIDATION, f"{text!r} is no day such as 2026-11-22.", param=param) from error
    if found.year not in YEARS:
        raise PlatformError(VALIDATION, f"The year lies between {YEARS[0]} and {YEARS[-1]}.", param=param)
    return round(datetime(found.year, found.month, found.day, tzinfo=UTC).timestamp()) * 1_000


def _read(session: Session, span: Span) -> Found:
    """Four queries, whatever there is."""
    lines = revenue_by_tier(session, span, by_day=_by_day(span))
    total = total_of(lines, span.from_ms)
    organisations = revenue_by_organisation(session, span, ORGANISATIONS_MAX)
    names = {
        row[0]: (row[1], row[2])
        for row in session.execute(select(Organisation.id, Organisation.name, Organisation.plan))
    }
    rows = [_row(each, total, *names.get(each.organisation, (each.organisation, ""))) for each in organisations]
    rest = _rest(total, organisations)
    if rest.requests:
        rows.append(_row(rest, total, OTHERS, ""))
    return Found(lines, rows, booked_in(session, span))


def _rest(total: Revenue, shown: Sequence[Revenue]) -> Revenue:
    known = total_of(shown, total.start_ms)
    names = ("requests", "failed", "prompt_tokens", "completion_tokens", "cached_tokens", "cost_nano", "loss_nano")
    return Revenue(total.start_ms, "", "", *(getattr(total, name) - getattr(known, name) for name in names))


def _row(line: Revenue, total: Revenue, name: str, plan: str) -> dict[str, Any]:
    return {
        "id": line.organisation,
        "name": name,
        "plan": plan,
        "tier": line.tier,
        "requests": line.requests,
        "prompt_tokens": line.prompt_tokens,
        "completion_tokens": line.completion_tokens,
        "cost_nano": line.cost_nano,
        "loss_nano": line.loss_nano,
        "share": line.cost_nano / total.cost_nano if total.cost_nano else 0.0,
    }


def _tiers(lines: Sequence[Revenue], total: Revenue) -> list[Row]:
    """The largest first."""
    names = sorted({line.tier for line in lines})
    sums = {tier: total_of([line for line in lines if line.tier == tier], total.start_ms) for tier in names}
    rows = [_row(each, total, tier, "") | {"tier": tier} for tier, each in sums.items()]
    return sorted(rows, key=lambda row: -row["cost_nano"])


def _table(name: str, columns: Sequence[Column], rows: Sequence[Row], asked: RevenueAsked) -> Table:
    """Only the table that is asked about is sorted and filtered."""
    kept = {"period": asked.period, "first": asked.first, "last": asked.last, "about": name}
    kept |= {"everybody": "true"} if asked.everybody else {}
    mine: Asked = asked if asked.about == name else TableAsked()
    return make_table(name, PATH, columns, rows, mine, {key: value for key, value in kept.items() if value})


def _organisations(found: Found, total: Revenue, asked: RevenueAsked) -> Table:
    """Those at the top and the rest as one row, until somebody asks for more."""
    table = _table("organisations", ORGANISATION_COLUMNS, found.organisations, asked)
    more = asked.everybody or (asked.about == table.id and (asked.q or asked.sort or asked.page > 1))
    if more or asked.format == "csv" or len(found.organisations) <= TOP + 1:
        return table
    head, tail = found.organisations[:TOP], found.organisations[TOP:]
    rest = {
        name: sum(row[name] for row in tail) for name in ("requests", *_MONEY, "prompt_tokens", "completion_tokens")
    }
    share = rest["cost_nano"] / total.cost_nano if total.cost_nano else 0.0
    others = {"id": "", "name": f"{OTHERS} ({len(tail)})", "plan": "", "share": share, **rest}
    return replace(table, rows=[*head, others], pages=1)


def _by_day(span: Span) -> bool:
    return span.days <= DAYS_MAX


def _chart(lines: Sequence[Revenue], span: Span, unit: str) -> dict[str, Any]:
    """Stacked by tier; months without usage stand there, too."""
    starts, at_ms = [], span.from_ms
    while at_ms < span.to_ms:
        start_ms = at_ms if _by_day(span) else month_start_ms(at_ms)
        starts.append(start_ms)
        at_ms = at_ms + DAY_MS if _by_day(span) else month_start_ms(at_ms, 1)
    found = {(line.tier, line.start_ms): line.cost_nano for line in lines}
    return {
        "kind": "bar",
        "x": [day(at, "UTC") if _by_day(span) else day(at, "UTC")[:7] for at in starts],
        "unit": unit,
        "stack": True,
        "series": [
            _series(tier, [found.get((tier, at), 0) for at in starts]) for tier in sorted({key[0] for key in found})
        ],
    }


def _series(name: str, amounts_nano: Sequence[int]) -> Mapping[str, Any]:
    exact = [money(nano) for nano in amounts_nano]
    return {"name": name, "data": [float(show_amount(nano)) for nano in amounts_nano], "exact": exact}
