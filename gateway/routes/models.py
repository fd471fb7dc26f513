"""GET /v1/models and /v1/models/{id}: each tier, and each alias as an entry of its own."""

from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from core.catalog import Tier
from core.errors import NOT_ALLOWED, NOT_FOUND, PlatformError
from gateway.headers import JSON_TYPE
from gateway.principal import Principal
from gateway.routes.access import authenticate_now
from gateway.schemas.answers import ERROR_RESPONSES, Capabilities, ModelCard, ModelList
from gateway.services import Services

OWNER = "mistralai"
MEDIA_TYPE = JSON_TYPE.decode("ascii")
MODEL_NAME_CHARS_MAX = 256


def models_router(services: Services) -> APIRouter:
    router = APIRouter(tags=["models"], responses={401: ERROR_RESPONSES[401], 503: ERROR_RESPONSES[503]})
    missing: dict[int | str, dict[str, Any]] = {404: {**ERROR_RESPONSES[400], "description": "No such model."}}

    async def caller(request: Request) -> Principal:
        return (await authenticate_now(services.principals, services.keeper, request.scope, None)).principal

    def find(principal: Principal, name: str) -> Tier:
        tier = services.catalog.tier(name)
        if tier is None or not may_use(principal, tier):
            raise PlatformError(NOT_FOUND, f"There is no model {name[:MODEL_NAME_CHARS_MAX]}.", param="model_id")
        return tier

    def show(tier: Tier, name: str) -> dict[str, Any]:
        return card(tier, name, services.clock.now_ms() // 1_000, services.admitter.capabilities(tier))

    @router.get("/v1/models", responses={200: {"model": ModelList}}, operation_id="list_models")
    async def list_models(request: Request, provider: str | None = None, model: str | None = None) -> Response:
        """All names that a request with this key may ask for; of one `provider` (owned_by), or one `model` only."""
        principal = await caller(request)
        tiers = [tier for tier in services.catalog.tiers if may_use(principal, tier) and provider in (None, OWNER)]
        names = [(tier, name) for tier in tiers for name in (tier.name, *tier.aliases) if model in (None, name)]
        cards = [show(tier, name) for tier, name in names]
        return Response(orjson.dumps({"object": "list", "data": cards}), media_type=MEDIA_TYPE)

    @router.get(
        "/v1/models/{model_id}",
        responses={200: {"model": ModelCard}, **missing},
        operation_id="retrieve_model",
    )
    async def retrieve_model(request: Request, model_id: str) -> Response:
        """One card, by name or alias."""
        tier = find(await caller(request), model_id)
        return Response(orjson.dumps(show(tier, model_id)), media_type=MEDIA_TYPE)

    @router.delete(
        "/v1/models/{model_id}",
        responses={403: ERROR_RESPONSES[403], **missing},
        status_code=403,
        operation_id="delete_model",
    )
    async def delete_model(request: Request, model_id: str) -> Response:
        """Only fine-tuned models can be deleted, and there are none: always refused."""
        tier = find(await caller(request), model_id)
        raise PlatformError(NOT_ALLOWED, f"{tier.name} is a base model and cannot be deleted.", param="model_id")

    return router


def may_use(principal: Principal, tier: Tier) -> bool:
    return principal.tiers is None or tier.name in principal.tiers


def card(tier: Tier, name: str, created_s: int, capabilities: frozenset[str]) -> dict[str, Any]:
    """`created` is the time of the request, as on Mistral's own API. `name` holds the tier, whatever the entry."""
    return {
        "id": name,
        "object": "model",
        "created": created_s,
        "owned_by": OWNER,
        "capabilities": {flag: flag in capabilities for flag in Capabilities.model_fields},
        "name": tier.name,
        "description": tier.description,
        "max_context_length": tier.context_tokens,
        "aliases": [other for other in (tier.name, *tier.aliases) if other != name],
        "deprecation": None,
        "deprecation_replacement_model": None,
        "default_model_temperature": tier.temperature_default if tier.kind == "chat" else None,
        "type": "base",
    }
