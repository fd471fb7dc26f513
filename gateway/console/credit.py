"""What operators book for an organisation: money that arrived, credit that is given, how far it may go below zero."""

from fastapi import APIRouter, Request
from pydantic import Field
from sqlalchemy.orm import Session
from starlette.responses import Response

from billing.grants import GIVEN_PRIORITY, NOTE_LENGTH_MAX, PRIORITY_MAX
from billing.money import parse_amount
from gateway.accounts.credit import Gift, book_gift, book_top_up, change_credit_limit
from gateway.console.desk import Changed, Console
from gateway.console.entrance import Fields, own_page
from gateway.console.feed import day_start_ms
from gateway.console.formats import money
from gateway.console.visitor import Place

AMOUNT_CHARS_MAX = 20


class AmountForm(Fields):
    """`back`: the page to go to afterwards."""

    amount: str = Field(max_length=AMOUNT_CHARS_MAX)
    back: str = Field(default="", max_length=1_000)

    @property
    def nano(self) -> int:
        return parse_amount(self.amount)


class TopUpForm(AmountForm):
    """`once` was made with the form: sent twice, it books once."""

    once: str = Field(pattern="^[0-9a-f]{32}$")
    note: str = Field(default="", max_length=NOTE_LENGTH_MAX)

    @property
    def key(self) -> str:
        return f"console:{self.once}"


class GrantForm(TopUpForm):
    """`expires`: the last day on which it can be used, in the organisation's time zone."""

    priority: int = Field(default=GIVEN_PRIORITY, ge=0, le=PRIORITY_MAX)
    expires: str = Field(default="", max_length=10)


def credit_router(console: Console) -> APIRouter:
    router, clock = console.router(), console.services.clock

    @router.post("/o/{organisation}/billing/top-ups")
    async def top_up(request: Request, organisation: str) -> Response:
        place = await _enter(console, request, organisation)
        asked = await console.form(request, place.visitor, TopUpForm)

        def run(session: Session) -> Changed[None]:
            by = place.visitor.actor
            book_top_up(session, place.id, asked.nano, key=asked.key, note=asked.note, actor=by, clock=clock)
            return None, ()

        await console.change(run)
        return console.done(
            request, _back(place, asked), f"{_shown(asked.nano, place)} are topped up for {place.name}."
        )

    @router.post("/o/{organisation}/billing/grants")
    async def give(request: Request, organisation: str) -> Response:
        place = await _enter(console, request, organisation)
        asked = await console.form(request, place.visitor, GrantForm)
        expires_ms = day_start_ms(asked.expires, place.zone, "expires", days_later=1)
        gift = Gift(asked.nano, asked.priority, expires_ms, asked.note)

        def run(session: Session) -> Changed[None]:
            book_gift(session, place.id, gift, key=asked.key, actor=place.visitor.actor, clock=clock)
            return None, ()

        await console.change(run)
        return console.done(request, _back(place, asked), f"{_shown(asked.nano, place)} are given to {place.name}.")

    @router.post("/o/{organisation}/billing/limit")
    async def set_limit(request: Request, organisation: str) -> Response:
        place = await _enter(console, request, organisation)
        asked = await console.form(request, place.visitor, AmountForm)

        def run(session: Session) -> Changed[None]:
            change_credit_limit(session, place.id, asked.nano, actor=place.visitor.actor, clock=clock)
            return None, ()

        await console.change(run)
        told = f"{place.name} may go {_shown(asked.nano, place)} below zero." if asked.nano else "It is prepaid only."
        return console.done(request, _back(place, asked), told)

    return router


async def _enter(console: Console, request: Request, organisation: str) -> Place:
    place = await console.enter(request, organisation)
    place.visitor.access.require_operator()
    return place


def _back(place: Place, asked: AmountForm) -> str:
    return own_page(asked.back) if asked.back else f"{place.path}/billing"


def _shown(amount_nano: int, place: Place) -> str:
    return f"{money(amount_nano)} {place.currency}"
