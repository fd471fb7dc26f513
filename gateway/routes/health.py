"""Whether the process lives, whether it can take work, and what it has counted."""

import asyncio

import orjson
from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from core.queue.base import QueueStats
from gateway.headers import JSON_TYPE
from gateway.metrics import CONTENT_TYPE
from gateway.schemas.answers import Alive, Readiness
from gateway.services import Services

MEDIA_TYPE = JSON_TYPE.decode("ascii")
CHECK_S_MAX = 2.0


def health_router(services: Services) -> APIRouter:
    router = APIRouter(tags=["operations"])
    tiers = [tier.name for tier in services.catalog.tiers]

    @router.get("/health/live", responses={200: {"model": Alive}}, operation_id="live")
    async def live(_request: Request) -> Response:
        """The event loop turns."""
        return Response(orjson.dumps({"status": "ok"}), media_type=MEDIA_TYPE)

    @router.get(
        "/health/ready",
        responses={200: {"model": Readiness}, 503: {"model": Readiness, "description": "Something is missing."}},
        operation_id="ready",
    )
    async def ready(_request: Request) -> Response:
        """Redis and the database answer, and the process is not on its way out."""
        missing = await missing_parts(services)
        body = orjson.dumps({"ready": not missing, "missing": missing})
        return Response(body, status_code=503 if missing else 200, media_type=MEDIA_TYPE)

    @router.get("/metrics", response_class=PlainTextResponse, operation_id="metrics")
    async def metrics(_request: Request) -> Response:
        """Prometheus text, summed over the gateways of this machine. Without a key: keep it off the public net."""
        try:
            stats = await _stats(services, tiers)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the queue, our own numbers are still good
            services.log.warning("queue_stats_failed", error=type(error).__name__)
            stats = None
        body = await asyncio.to_thread(services.metrics.render, stats)
        return Response(body, media_type=CONTENT_TYPE.decode("ascii"))

    return router


async def missing_parts(services: Services) -> list[str]:
    """What keeps this process from doing its work, in bounded time; empty when it is ready."""
    names = ("redis", "database")
    answers = await asyncio.gather(
        asyncio.wait_for(services.keeper.stats(()), CHECK_S_MAX),
        asyncio.wait_for(services.check_database(), CHECK_S_MAX),
        return_exceptions=True,
    )
    missing = [name for name, answer in zip(names, answers, strict=True) if isinstance(answer, BaseException)]
    if services.lifecycle.broken:
        missing.append("replies")
    if services.lifecycle.draining:
        missing.append("draining")
    return missing


async def _stats(services: Services, tiers: list[str]) -> QueueStats:
    return await asyncio.wait_for(services.keeper.stats(tiers), CHECK_S_MAX)
