"""Getting started: a key, and first programs for the client that one uses, filled in."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from billing.prices import price_schedules
from gateway.accounts.roles import Permission
from gateway.console.desk import Console
from gateway.console.snippets import KEY_VARIABLE, clients_for
from gateway.console.visitor import Place

CLIENT_CHARS_MAX = 32
TIER_CHARS_MAX = 64


def start_router(console: Console) -> APIRouter:
    router, services = console.router(), console.services
    kinds = {tier.name: tier.kind for tier in services.catalog.tiers}

    def usable(session: Session, place: Place) -> list[str]:
        """Without a price nobody may use a tier."""
        priced = price_schedules(session, place.id, place.plan, list(kinds), services.clock.now_ms())
        return [name for name in kinds if name in priced]

    @router.get("/o/{organisation}/start")
    async def show(
        request: Request,
        organisation: str,
        client: Annotated[str, Query(max_length=CLIENT_CHARS_MAX)] = "",
        tier: Annotated[str, Query(max_length=TIER_CHARS_MAX)] = "",
    ) -> Response:
        place = await console.enter(request, organisation)
        names = await console.read(lambda session: usable(session, place))
        talking = [name for name in names if kinds[name] == "chat"]
        embedder = next((name for name in names if kinds[name] == "embed"), "")
        chosen = tier if tier in talking else next(iter(talking), "")
        base_url = console.public_url(request)
        clients = clients_for(base_url, chosen, embedder)
        shown = next((each for each in clients if each.id == client), clients[0])
        context = {
            "base_url": base_url,
            "clients": clients,
            "shown": shown,
            "tiers": talking,
            "tier": chosen,
            "key_variable": KEY_VARIABLE,
            "makes_keys": place.somewhere(Permission.KEYS_CREATE),
        }
        return await console.page(request, "pages/start.html", context, place=place)

    return router
