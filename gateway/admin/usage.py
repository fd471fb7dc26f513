"""/v1/admin/usage: a calendar month of an organisation, by model and day."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Query
from sqlalchemy.orm import Session

from billing.calendar import months
from billing.customers import time_zone_of
from billing.money import show_amount, show_price
from billing.prices import price_schedules
from billing.usage import DAY_MS, Dimension, Period, UsageLine, UsageQuery, local_time, report
from core.catalog import Catalog
from core.queue.base import Price
from core.queue.rules import Window
from gateway.accounts.models import Organisation
from gateway.admin.desk import ERRORS, Acting, AdminDesk
from gateway.admin.places import workspace_by_id
from gateway.schemas.admin.fields import YEARS, IdInQuery
from gateway.schemas.admin.usage import CategoryUsage, Group, ModelUsage, MonthlyUsage, UsageEntry, UsagePrice
from gateway.services import Services

LINES_MAX = 10_000
SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£", "CHF": "CHF", "JPY": "¥"}
Year = Annotated[int | None, Query(ge=YEARS[0] + 1, le=YEARS[-1] - 1, description="Absent: the current one.")]
Month = Annotated[int | None, Query(ge=1, le=12, description="Absent: the current one.")]


def monthly_usage_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/admin/usage", tags=["admin: usage"], responses=ERRORS)
    desk, catalog = AdminDesk(services), services.catalog

    @router.get("", operation_id="admin_get_usage")
    async def get(
        acting: Annotated[Acting, Depends(desk.enter)],
        year: Year = None,
        month: Month = None,
        workspace_id: IdInQuery = None,
    ) -> MonthlyUsage:
        """Of the organisation, or of one workspace. GET /v1/usage has other periods and files."""
        now_ms = services.clock.now_ms()

        def run(session: Session) -> MonthlyUsage:
            within = acting.within(session)
            if workspace_id is not None:
                home = workspace_by_id(session, workspace_id, within).organisation_id
            else:
                home = acting.organisation(session)
            zone = time_zone_of(session, home)
            asked = _month(zone, year, month, now_ms)
            query = UsageQuery(
                home,
                asked.start_ms,
                asked.end_ms,
                workspace=workspace_id,
                period=Period.DAY,
                dimensions=(Dimension.TIER,),
                time_zone=zone,
            )
            lines = report(session, query, count=LINES_MAX)
            plan = session.get_one(Organisation, home).plan
            prices = price_schedules(session, home, plan, [tier.name for tier in catalog.tiers], now_ms)
            return _shown(asked, zone, lines, prices, catalog, now_ms)

        return await desk.read(run)

    return router


def _month(zone: str, year: int | None, month: int | None, now_ms: int) -> Window:
    """In the zone's own calendar."""
    local = datetime.fromtimestamp(now_ms // 1_000, UTC).astimezone(ZoneInfo(zone))
    wanted = f"{year or local.year:04}-{month or local.month:02}"
    middle = datetime(year or local.year, month or local.month, 15, tzinfo=UTC)
    middle_ms = round(middle.timestamp()) * 1_000
    return next(found for found in months(zone, middle_ms - DAY_MS, middle_ms + DAY_MS) if found.id == wanted)


def _shown(
    month: Window,
    zone: str,
    lines: Sequence[UsageLine],
    prices: dict[str, tuple[Price, ...]],
    catalog: Catalog,
    now_ms: int,
) -> MonthlyUsage:
    embedding = {tier.name for tier in catalog.tiers if tier.kind == "embed"}
    tiers = sorted({line.tier for line in lines if line.tier is not None})
    models = {tier: _model(tier, [line for line in lines if line.tier == tier], zone) for tier in tiers}
    total_nano = sum(line.cost_nano for line in lines)
    year, number = (int(part) for part in month.id.split("-"))
    return MonthlyUsage(
        start_date=local_time(month.start_ms, zone),
        end_date=local_time(month.end_ms, zone),
        previous_month=_neighbour(year, number, -1),
        next_month=_neighbour(year, number, 1),
        time_zone=zone,
        currency=catalog.currency,
        currency_symbol=SYMBOLS.get(catalog.currency, catalog.currency),
        prices=[price for tier, schedule in prices.items() for price in _prices(tier, schedule, now_ms)],
        completion=CategoryUsage(models={tier: used for tier, used in models.items() if tier not in embedding}),
        embedding=CategoryUsage(models={tier: used for tier, used in models.items() if tier in embedding}),
        requests=sum(line.requests for line in lines),
        total=show_amount(total_nano),
        total_nano=total_nano,
    )


def _model(tier: str, lines: Sequence[UsageLine], zone: str) -> ModelUsage:
    def entries(group: Group) -> list[UsageEntry]:
        counted = ((line, _tokens(line, group)) for line in lines)
        return [
            UsageEntry(
                billing_metric=tier,
                billing_group=group,
                timestamp=local_time(line.start_ms, zone),
                value=tokens,
            )
            for line, tokens in counted
            if tokens
        ]

    cost_nano = sum(line.cost_nano for line in lines)
    return ModelUsage(
        input=entries("input"),
        cached=entries("cached"),
        output=entries("output"),
        requests=sum(line.requests for line in lines),
        cost=show_amount(cost_nano),
        cost_nano=cost_nano,
    )


def _tokens(line: UsageLine, group: Group) -> int:
    if group == "input":
        return line.prompt_tokens - line.cached_tokens
    return line.cached_tokens if group == "cached" else line.completion_tokens


def _prices(tier: str, schedule: Sequence[Price], now_ms: int) -> list[UsagePrice]:
    """Of the version in force."""
    current = next(price for price in reversed(schedule) if price.start_ms <= now_ms)
    by_group: dict[Group, int] = {
        "input": current.input_nano,
        "cached": current.cached_nano,
        "output": current.output_nano,
    }
    return [
        UsagePrice(
            billing_metric=tier, billing_group=group, price=show_price(nano), price_nano=nano, version=current.version
        )
        for group, nano in by_group.items()
    ]


def _neighbour(year: int, month: int, step: int) -> str:
    months_since = year * 12 + month - 1 + step
    return f"{months_since // 12:04}-{months_since % 12 + 1:02}"
