"""Prices, for operators: what is in force and what is scheduled; a new list, looked at before it is put into force."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.responses import Response

from billing.money import show_price
from billing.price_lists import BATCH_PERCENT, LEAD_MS, PriceChange, PriceEntry, PriceFile
from billing.price_views import (
    PricePreview,
    PriceStanding,
    ScopeKind,
    preview_prices,
    price_standings,
)
from billing.prices import applying_prices
from core.errors import NOT_FOUND, PlatformError
from gateway.accounts.models import NAME_LENGTH_MAX, Organisation, Plan
from gateway.accounts.organisations import find_organisation
from gateway.accounts.plans import list_plans
from gateway.accounts.pricing import change_prices
from gateway.accounts.titles import target_names
from gateway.accounts.trail import Target
from gateway.console.desk import HOME, Changed, Console
from gateway.console.formats import moment
from gateway.console.listing import answer_table
from gateway.console.price_forms import PricesForm, read_query
from gateway.console.table import Column, Row, TableAsked, make_table
from gateway.services import Services

PATH = f"{HOME}/operator/prices"
SHOWN_MAX = 5_000
PER_MILLION = 1_000  # prices are kept per thousand tokens
PARTS = ("input", "cached", "output")
COLUMNS = (
    Column("tier", "Tier"),
    Column("scope", "For", "cell", lambda row: row["scope"]),
    Column("state", "State", "cell"),
    Column("start_ms", "Since", "cell"),
    Column("input_nano", "Input", "money"),
    Column("cached_nano", "Cached input", "money"),
    Column("output_nano", "Output", "money"),
    Column("batch", "Batch pays", "share"),
    Column("version", "Version", "cell"),
)


class PricesAsked(TableAsked):
    """`past`: with those that were replaced."""

    kind: ScopeKind | None = Field(default=None)
    past: bool = False

    def kept(self) -> dict[str, str]:
        found = {"kind": self.kind.value} if self.kind else {}
        return {**found, "past": "true"} if self.past else found


@dataclass(frozen=True, slots=True)
class _Scope:
    """Whom a list is for. `plan` of an organisation is the one that it is on."""

    kind: ScopeKind
    name: str
    plan: str = ""
    organisation: str = ""


def prices_router(console: Console) -> APIRouter:
    router, services = console.router(), console.services
    _add_list(router, console)

    @router.get("/operator/prices")
    async def show(request: Request, asked: Annotated[PricesAsked, Query()]) -> Response:
        visitor = await console.operator(request)
        now_ms = services.clock.now_ms()
        rows = await console.read(lambda session: _rows(session, asked, now_ms))
        table = make_table("prices", PATH, COLUMNS, rows, asked, asked.kept())
        context = {"asked": asked, "money_unit": services.catalog.currency, "full": len(rows) >= SHOWN_MAX}
        return await answer_table(console, request, "pages/prices.html", table, visitor=visitor, context=context)

    return router


def _add_list(router: APIRouter, console: Console) -> None:
    services = console.services

    @router.get("/operator/prices/new")
    async def show_form(
        request: Request,
        plan: Annotated[str, Query(max_length=NAME_LENGTH_MAX)] = "",
        organisation: Annotated[str, Query(max_length=NAME_LENGTH_MAX)] = "",
    ) -> Response:
        visitor = await console.operator(request)
        context = await console.read(lambda session: _form(session, services, plan, organisation))
        return await console.page(request, "pages/prices_new.html", context, visitor=visitor)

    @router.get("/operator/prices/preview")
    async def preview(request: Request) -> Response:
        """What a list would change; writes nothing."""
        visitor = await console.operator(request)
        asked = read_query(request)
        context = await console.read(lambda session: _preview(session, services, asked))
        partial = "hx-request" in request.headers
        template = "parts/prices_preview.html" if partial else "pages/prices_preview.html"
        return await console.page(request, template, context, visitor=visitor)

    @router.post("/operator/prices")
    async def apply(request: Request) -> Response:
        visitor = await console.operator(request)
        asked = await console.form(request, visitor, PricesForm)
        tiers = [tier.name for tier in services.catalog.tiers]

        def run(session: Session) -> Changed[tuple[PriceChange, ...]]:
            _, wanted = _wanted(session, asked)
            return change_prices(session, wanted, tiers=tiers, actor=visitor.actor, clock=services.clock)

        changes = await console.change(run)
        return console.done(request, PATH, _told(asked, len(changes)))


def _rows(session: Session, asked: PricesAsked, now_ms: int) -> list[Row]:
    found = price_standings(session, now_ms, SHOWN_MAX, kind=asked.kind, past=asked.past)
    homes = {Target("organisation", each.version.organisation) for each in found if each.version.organisation}
    names = {target.id: name for target, name in target_names(session, homes).items()}
    return [_row(each, names) for each in found]


def _row(standing: PriceStanding, names: dict[str, str]) -> Row:
    version = standing.version
    return {
        "tier": version.tier,
        "scope": names.get(version.organisation, version.organisation) or version.plan or "everybody",
        "plan": version.plan,
        "organisation": version.organisation,
        "state": standing.state.value,
        "start_ms": version.start_ms,
        "replaced_ms": standing.replaced_ms,
        **{f"{part}_nano": getattr(version, f"{part}_nano") * PER_MILLION for part in PARTS},
        "batch": version.batch_percent / 100,
        "version": version.version,
        "note": version.note,
    }


def _form(session: Session, services: Services, plan: str, organisation: str) -> dict[str, Any]:
    """The form, filled with what is paid now."""
    scope = _scope(session, plan, organisation)
    tiers = [tier.name for tier in services.catalog.tiers]
    now_ms = services.clock.now_ms()
    applying = applying_prices(session, scope.organisation, scope.plan, tiers, now_ms)
    kinds = {tier.name: tier.kind for tier in services.catalog.tiers}
    return {
        "scope": scope,
        "plans": [(each.name, each.name) for each in list_plans(session)],
        "lines": [
            {
                "tier": each.tier,
                "embeds": kinds[each.tier] == "embed",
                **{part: _shown(each.current, part) for part in PARTS},
                "batch": BATCH_PERCENT if each.current is None else each.current.batch_percent,
            }
            for each in applying
        ],
        "version": datetime.fromtimestamp(now_ms // 1_000, UTC).date().isoformat(),
        "money_unit": services.catalog.currency,
        "lead_s": LEAD_MS // 1_000,
    }


def _shown(entry: Any, part: str) -> str:
    return "" if entry is None else show_price(getattr(entry, f"{part}_nano"))


def _preview(session: Session, services: Services, asked: PricesForm) -> dict[str, Any]:
    scope, wanted = _wanted(session, asked)
    at_ms = services.clock.now_ms() + LEAD_MS if wanted.start_ms is None else wanted.start_ms
    found = preview_prices(session, wanted.entries, at_ms, plan=scope.plan, organisation=scope.organisation)
    return {
        "scope": scope,
        "asked": asked,
        "previews": [_preview_row(each) for each in found],
        "changing": sum(each.changes for each in found),
        "start": moment(at_ms, "UTC") if asked.start else "",
        "organisations": _concerned(session, scope),
        "money_unit": services.catalog.currency,
    }


def _preview_row(preview: PricePreview) -> Row:
    before, after = preview.before, preview.after
    return {
        "tier": after.scope.tier,
        "changes": preview.changes,
        "wider": before is not None and before.scope != after.scope,
        "parts": [_part(before, after, part) for part in PARTS],
        "batch_before": None if before is None else before.batch_percent,
        "batch_after": after.batch_percent,
    }


def _part(before: PriceEntry | None, after: PriceEntry, part: str) -> Row:
    new = getattr(after, f"{part}_nano")
    old = None if before is None else getattr(before, f"{part}_nano")
    return {
        "before_nano": None if old is None else old * PER_MILLION,
        "after_nano": new * PER_MILLION,
        "change": (new - old) / old if old else None,
        "same": old == new,
    }


def _wanted(session: Session, asked: PricesForm) -> tuple[_Scope, PriceFile]:
    scope = _scope(session, asked.plan, asked.organisation)
    return scope, asked.to_file(scope.organisation)


def _scope(session: Session, plan: str, organisation: str) -> _Scope:
    """Raises PlatformError (NOT_FOUND)."""
    if organisation:
        found = find_organisation(session, organisation)
        return _Scope(ScopeKind.ORGANISATION, found.name, found.plan, found.id)
    if plan:
        if session.get(Plan, plan) is None:
            raise PlatformError(NOT_FOUND, f"There is no plan {plan!r}.", param="plan")
        return _Scope(ScopeKind.PLAN, plan, plan)
    return _Scope(ScopeKind.EVERYBODY, "everybody")


def _concerned(session: Session, scope: _Scope) -> int:
    if scope.kind is ScopeKind.ORGANISATION:
        return 1
    count = select(func.count()).select_from(Organisation)
    if scope.kind is ScopeKind.PLAN:
        count = count.where(Organisation.plan == scope.plan)
    return session.scalars(count).one()


def _told(asked: PricesForm, count: int) -> str:
    if not count:
        return "Nothing differs from what is in force then: nothing was written."
    when = f"at {asked.start.replace('T', ' ')} UTC" if asked.start else "in a minute"
    return f"{count} price{'' if count == 1 else 's'} of {asked.version} start{'s' if count == 1 else ''} {when}."
