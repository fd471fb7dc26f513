"""One request: where its time went and how its cost came about; or how far it is; or why it was refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from billing.models import UsageRecord
from billing.money import show_price
from billing.prices import PriceVersion
from billing.requests import find_request, price_of
from core.errors import NOT_FOUND, UNAVAILABLE, PlatformError
from core.meter.cost import TOKENS_PER_PRICE, cost_nano
from core.meter.refusals import READ_MAX, RefusalEvent
from core.queue.base import OpenRequest
from gateway.accounts.labels import key_names, workspace_names
from gateway.accounts.roles import Permission
from gateway.console.desk import Console
from gateway.console.formats import money
from gateway.console.visitor import Place
from gateway.desk import QUEUE_AWAY

UNKNOWN = "There is no such request here, or it was refused more than a day ago."
WIDTH = 1_000  # of the drawing, in its own units
THINNEST = 3
WAITS_MAX = 60
NANO_DIGITS = 9
MILLI_DIGITS = 3

Found = UsageRecord | OpenRequest | RefusalEvent


@dataclass(frozen=True, slots=True)
class Stage:
    """What went on from at_ms on; `x` and `width` in the drawing. The last one is the end."""

    name: str
    what: str
    at_ms: int
    took_ms: int | None = None
    x: int = 0
    width: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """Tokens of one class: their price for a million, and the exact product, both as text."""

    name: str
    tokens: int
    price: str
    product: str


@dataclass(frozen=True, slots=True)
class Cost:
    """How the cost came about. `exact`: the sum before it is rounded to nano-units; `fits`: what was recorded is it."""

    steps: list[Step]
    exact: str
    rounded_nano: int
    fits: bool


def request_router(console: Console) -> APIRouter:
    router = console.router()

    @router.get("/o/{organisation}/requests/{request_id}")
    async def show(
        request: Request, organisation: str, request_id: str, waits: Annotated[int, Query(ge=0, le=WAITS_MAX)] = 0
    ) -> Response:
        """`waits`: so often a page of a running request has asked again. Between its end and its record in SQL nobody
        knows it for a moment.
        """
        place = await console.enter(request, organisation, Permission.USAGE_READ)
        try:
            found = await find(console, place, request_id)
        except PlatformError as error:
            if error.kind is not NOT_FOUND or not 0 < waits < WAITS_MAX:
                raise
            ended = {"request_id": request_id, "found": None, "waits": waits + 1}
            return await console.page(request, "pages/request_open.html", ended, place=place)
        names = await console.read(lambda session: _names(session, place, found))
        context: dict[str, Any] = {"request_id": request_id, "found": found, "names": names}
        if isinstance(found, OpenRequest):
            now_ms = console.services.clock.now_ms()
            context |= {"stages": open_stages(found, now_ms), "waits": min(waits + 1, WAITS_MAX)}
            return await console.page(request, "pages/request_open.html", context, place=place)
        if isinstance(found, RefusalEvent):
            return await console.page(request, "pages/request_refused.html", context, place=place)
        price = await console.read(lambda session: price_of(session, found.price_version))
        context |= {"stages": stages(found), "price": price, "cost": None if price is None else cost(found, price)}
        return await console.page(request, "pages/request.html", context, place=place)

    return router


async def find(console: Console, place: Place, request_id: str) -> Found:
    """Among what is settled, open, or refused in the last day. Raises PlatformError: NOT_FOUND, also for what is in a
    workspace that the visitor does not see; UNAVAILABLE.
    """
    services, seen = console.services, place.workspaces(Permission.USAGE_READ)
    found: Found | None = await console.read(lambda session: find_request(session, place.id, request_id))
    try:
        if found is None:
            found = await services.keeper.open_request(request_id)
            if found is not None and found.organisation != place.id:
                found = None
        if found is None:
            events = await services.refusals.read(place.id, 0, READ_MAX)
            found = next((event for event in events if event.request_id == request_id), None)
    except QUEUE_AWAY as error:
        raise PlatformError(UNAVAILABLE, "Redis does not answer at the moment.", retry_after_s=2) from error
    if found is None or (seen is not None and found.workspace not in seen):
        raise PlatformError(NOT_FOUND, UNKNOWN)
    return found


def stages(record: UsageRecord) -> list[Stage]:
    """What never came is left out."""
    bounds = [("Queued", "waited for a worker", record.admitted_ms)]
    if record.taken_ms:
        bounds.append(("First token", "a worker read the prompt", record.taken_ms))
        if record.first_token_ms:
            bounds.append(("Answer", "the rest of the answer", record.taken_ms + record.first_token_ms))
    return _drawn(bounds, max(record.settled_ms, bounds[-1][2]), "Done")


def open_stages(found: OpenRequest, now_ms: int) -> list[Stage]:
    bounds = [("Queued", "waits for a worker", found.admitted_ms)]
    if found.taken_ms:
        bounds.append(("Running", "at a worker", found.taken_ms))
    return _drawn(bounds, max(now_ms, bounds[-1][2]), "Now")


def cost(record: UsageRecord, price: PriceVersion) -> Cost:
    fresh = record.prompt_tokens - record.cached_tokens
    classes = (
        ("Input", fresh, price.input_nano),
        ("Cached input", record.cached_tokens, price.cached_nano),
        ("Output", record.completion_tokens, price.output_nano),
    )
    steps = [Step(name, tokens, show_price(nano), _exact(tokens * nano)) for name, tokens, nano in classes]
    rounded_nano = cost_nano(
        record.prompt_tokens,
        record.cached_tokens,
        record.completion_tokens,
        input_nano=price.input_nano,
        cached_nano=price.cached_nano,
        output_nano=price.output_nano,
    )
    exact = _exact(sum(tokens * nano for _, tokens, nano in classes))
    return Cost(steps, exact, rounded_nano, rounded_nano == record.cost_nano + record.loss_nano)


def _drawn(bounds: list[tuple[str, str, int]], end_ms: int, end: str) -> list[Stage]:
    begin_ms = bounds[0][2]
    whole_ms = max(1, end_ms - begin_ms)
    found = []
    for number, (name, what, at_ms) in enumerate(bounds):
        until_ms = bounds[number + 1][2] if number + 1 < len(bounds) else end_ms
        x = WIDTH * (at_ms - begin_ms) // whole_ms
        width = max(THINNEST, WIDTH * (until_ms - at_ms) // whole_ms)
        found.append(Stage(name, what, at_ms, until_ms - at_ms, min(x, WIDTH - THINNEST), width))
    return [*found, Stage(end, "", end_ms)]


def _exact(nano_thousandths: int) -> str:
    """Thousandths of a nano-unit as units of the currency, all digits."""
    nano, rest = divmod(nano_thousandths, TOKENS_PER_PRICE)
    text = money(nano)
    if not rest:
        return text
    whole, _, places = text.partition(".")
    return f"{whole}.{places.ljust(NANO_DIGITS, '0')}{rest:0{MILLI_DIGITS}d}".rstrip("0")


def _names(session: Session, place: Place, found: Found) -> Mapping[str, str]:
    """Of the workspace, and of the key for those who may see keys."""
    names = dict[str, Any](workspace_names(session, place.id))
    if place.may(Permission.KEYS_READ, found.workspace):
        names |= key_names(session, place.id, {found.key_id})
    return names
