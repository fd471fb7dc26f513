"""GET /v1/models and /v1/models/{id}: each tier, and each alias as an entry of its own."""

from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from core.catalog import Tier
from core.errors import NOT_FOUND, PlatformError
from gateway.headers import JSON_TYPE
from gateway.routes.access import authenticate_now
from gateway.schemas.answers import ERROR_RESPONSES, Capabilities, ModelCard, ModelList
from gateway.services import Services

OWNER = "mistralai"
MEDIA_TYPE = JSON_TYPE.decode("ascii")
MODEL_NAME_CHARS_MAX = 256


def models_router(services: Services) -> APIRouter:
    router = APIRouter(tags=["models"], responses={401: ERROR_RESPONSES[401], 503: ERROR_RESPONSES[503]})

    @router.get("/v1/models", responses={200: {"model": ModelList}}, operation_id="list_models")
    async def list_models(request: Request) -> Response:
        """All names that a request may ask for."""
        await authenticate_now(services.principals, services.keeper, request.scope, None)
        created_s = services.clock.now_ms() // 1_000
        cards = [card(tier, name, created_s) for tier in services.catalog.tiers for name in (tier.name, *tier.aliases)]
        return Response(orjson.dumps({"object": "list", "data": cards}), media_type=MEDIA_TYPE)

    @router.get(
        "/v1/models/{model_id}",
        responses={200: {"model": ModelCard}, 404: {**ERROR_RESPONSES[400], "description": "No such model."}},
        operation_id="retrieve_model",
    )
    async def retrieve_model(request: Request, model_id: str) -> Response:
        """One card, by name or alias."""
        await authenticate_now(services.principals, services.keeper, request.scope, None)
        tier = services.catalog.tier(model_id)
        if tier is None:
            raise PlatformError(NOT_FOUND, f"There is no model {model_id[:MODEL_NAME_CHARS_MAX]}.", param="model_id")
        body = orjson.dumps(card(tier, model_id, services.clock.now_ms() // 1_000))
        return Response(body, media_type=MEDIA_TYPE)

    return router


def card(tier: Tier, name: str, created_s: int) -> dict[str, Any]:
    """`created` is the time of the request, as on Mistral's own API. `name` holds the tier, whatever the entry."""
    return {
        "id": name,
        "object": "model",
        "created": created_s,
        "owned_by": OWNER,
        "capabilities": {flag: flag in tier.capabilities for flag in Capabilities.model_fields},
        "name": tier.name,
        "description": tier.description,
        "max_context_length": tier.context_tokens,
        "aliases": [other for other in (tier.name, *tier.aliases) if other != name],
        "deprecation": None,
        "deprecation_replacement_model": None,
        "default_model_temperature": tier.temperature_default if tier.kind == "chat" else None,
        "type": "base",
    }
