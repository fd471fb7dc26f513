"""Billing: what is left, where it came from, what it is spent on at which prices, and who is billed."""

from collections.abc import Sequence
from zoneinfo import available_timezones

from fastapi import APIRouter, Request
from pydantic import Field
from sqlalchemy.orm import Session
from starlette.responses import Response

from billing.calendar import DEFAULT_ZONE
from billing.customers import (
    ADDRESS_LENGTH_MAX,
    EMAIL_LENGTH_MAX,
    NAME_LENGTH_MAX,
    ZONE_LENGTH_MAX,
    Customer,
    CustomerChange,
    customer_of,
)
from billing.money import show_amount
from billing.prices import applying_prices
from core.db import DatabaseUnavailableError
from core.errors import NOT_ALLOWED, PlatformError
from core.meter.credit import Level
from core.queue.rules import Rule, RuleState
from gateway.accounts.customers import change_customer
from gateway.accounts.roles import Permission
from gateway.console.billing_rows import (
    GRANT_COLUMNS,
    GRANTS_SHOWN_MAX,
    PRICE_COLUMNS,
    available_nano,
    caps_of,
    grant_row,
    money_of,
    price_row,
)
from gateway.console.desk import Changed, Console
from gateway.console.entrance import Fields
from gateway.console.listing import answer_table
from gateway.console.table import Asked, make_table
from gateway.console.visitor import Place
from gateway.desk import QUEUE_AWAY
from gateway.limit_states import rule_states
from gateway.services import Services

ONCE_BYTES = 16


class CustomerForm(Fields):
    """All of it: what is left empty is emptied."""

    name: str = Field(max_length=NAME_LENGTH_MAX)
    address: str = Field(default="", max_length=ADDRESS_LENGTH_MAX)
    email: str = Field(default="", max_length=EMAIL_LENGTH_MAX)
    time_zone: str = Field(default=DEFAULT_ZONE, max_length=ZONE_LENGTH_MAX)

    def change(self) -> CustomerChange:
        address = self.address.replace("\r\n", "\n")
        return CustomerChange(name=self.name, address=address, email=self.email, time_zone=self.time_zone)


def billing_router(console: Console) -> APIRouter:
    router, services = console.router(), console.services
    _add_prices(router, console)
    _add_customer(router, console)

    @router.get("/o/{organisation}/billing")
    async def show(request: Request, organisation: str, asked: Asked) -> Response:
        place = await enter_billing(console, request, organisation)
        now_ms = services.clock.now_ms()
        found = await console.read(lambda session: money_of(session, place, now_ms))
        states = await _states(services, place, [each.rule for each in found.caps], now_ms)
        level = await _level(services, place)
        rows = [grant_row(grant, now_ms) for grant in found.grants]
        table = make_table("grants", f"{place.path}/billing", GRANT_COLUMNS, rows, asked)
        context = {
            "money": found,
            "level": level,
            "available_nano": available_nano(found.account, level),
            "caps": caps_of(found.caps, states, now_ms),
            "limit_text": show_amount(found.account.limit_nano),
            "full": len(rows) >= GRANTS_SHOWN_MAX,
            "once": services.ids.token(ONCE_BYTES),
            "payment_note": services.settings.payment_note,
        }
        return await answer_table(console, request, "pages/billing.html", table, place, context=context)

    return router


async def enter_billing(console: Console, request: Request, organisation: str) -> Place:
    """The account is the organisation's as a whole: no role in a workspace opens it."""
    place = await console.enter(request, organisation)
    place.visitor.access.require(Permission.BILLING_READ, place.id)
    return place


def may_change_customer(place: Place) -> bool:
    return place.may(Permission.BILLING_PAY) or place.may(Permission.ORGANISATION_MANAGE)


def _add_prices(router: APIRouter, console: Console) -> None:
    services = console.services
    tiers = [tier.name for tier in services.catalog.tiers]

    @router.get("/o/{organisation}/billing/prices")
    async def show_prices(request: Request, organisation: str, asked: Asked) -> Response:
        place = await enter_billing(console, request, organisation)
        now_ms = services.clock.now_ms()
        found = await console.read(lambda session: applying_prices(session, place.id, place.plan, tiers, now_ms))
        rows = [price_row(each, place) for each in found]
        table = make_table("prices", f"{place.path}/billing/prices", PRICE_COLUMNS, rows, asked)
        kinds = {tier.name: tier.kind for tier in services.catalog.tiers}
        context = {"kinds": kinds}
        return await answer_table(console, request, "pages/billing_prices.html", table, place, context=context)


def _add_customer(router: APIRouter, console: Console) -> None:
    clock = console.services.clock

    @router.get("/o/{organisation}/billing/customer")
    async def show_customer(request: Request, organisation: str) -> Response:
        place = await enter_billing(console, request, organisation)
        customer: Customer = await console.read(lambda session: customer_of(session, place.id))
        zones = [(zone, zone.replace("_", " ")) for zone in sorted(available_timezones() - {"localtime", "Factory"})]
        context = {"customer": customer, "zones": zones, "changes": may_change_customer(place)}
        return await console.page(request, "pages/billing_customer.html", context, place=place)

    @router.post("/o/{organisation}/billing/customer")
    async def change(request: Request, organisation: str) -> Response:
        place = await enter_billing(console, request, organisation)
        if not may_change_customer(place):
            raise PlatformError(NOT_ALLOWED, "Your role does not allow to change who is billed.")
        asked = await console.form(request, place.visitor, CustomerForm)

        def run(session: Session) -> Changed[None]:
            done = change_customer(session, place.id, asked.change(), actor=place.visitor.actor, clock=clock)
            return None, done.publish

        await console.change(run)
        return console.done(request, f"{place.path}/billing/customer", "Saved.")


async def _states(services: Services, place: Place, rules: Sequence[Rule], now_ms: int) -> Sequence[RuleState] | None:
    if not rules:
        return []
    try:
        return await rule_states(services.counters, services.database, place.id, rules, now_ms)
    except (DatabaseUnavailableError, *QUEUE_AWAY):
        return None


async def _level(services: Services, place: Place) -> Level | None:
    try:
        return await services.credit.level(place.id)
    except QUEUE_AWAY:
        return None
