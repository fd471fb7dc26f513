"""Every other path under /console: a page, where the API would answer in JSON."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from core.errors import NOT_FOUND, PlatformError
from gateway.console.desk import Console


def missing_router(console: Console) -> APIRouter:
    router = console.router()

    @router.get("/{path:path}")
    async def missing(request: Request, path: str) -> Response:
        """Whoever is not logged in learns nothing, not even that there is no such page."""
        await console.visitor(request)
        raise PlatformError(NOT_FOUND, f"There is no page {path[:100]!r} here.")

    return router
