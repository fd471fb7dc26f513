"""The gateway as one readable list: what answers which path, and what stands around it."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import BAD_REQUEST, METHOD_NOT_ALLOWED, NOT_FOUND, VALIDATION, PlatformError
from gateway.admin.routers import ADMIN_BODIES, admin_routers
from gateway.console.routers import console_routers
from gateway.console_relay import ConsoleRelay, is_for_console
from gateway.cors import with_cors
from gateway.errors import Rendered, render, render_method_not_allowed, render_no_route
from gateway.middleware import Edge, call_of, route_of
from gateway.routes.chat import chat_route
from gateway.routes.docs import docs_router
from gateway.routes.embeddings import embeddings_route
from gateway.routes.fim import fim_route
from gateway.routes.health import health_router
from gateway.routes.limits import limits_router
from gateway.routes.models import models_router
from gateway.routes.usage import usage_router
from gateway.routes.users import users_router
from gateway.schemas.answers import ChatCompletionChunk
from gateway.schemas.chat import ChatCompletionRequest
from gateway.schemas.embeddings import EmbeddingRequest
from gateway.schemas.fim import FIMCompletionRequest
from gateway.schemas.openapi import build_openapi
from gateway.schemas.parsing import DETAILS_MAX
from gateway.services import Services

TITLE = "Tramontane"
DESCRIPTION = "A self-hosted, metered, multi-tier model API that speaks Mistral's."
VERSION = "0.1.0"
DOCUMENTED = (ChatCompletionRequest, ChatCompletionChunk, FIMCompletionRequest, EmbeddingRequest, *ADMIN_BODIES)
ROUTERS = (models_router, users_router, limits_router, usage_router, health_router, *admin_routers)


class GatewayApp(FastAPI):
    """Metered routes are found by their path before FastAPI's own layers, which they do not need. `allowed`: the
    methods of each path; the router itself names only those of the first route that has it.
    """

    metered: Mapping[str, ASGIApp] = MappingProxyType({})
    allowed: Mapping[str, str] = MappingProxyType({})
    front: ASGIApp | None = None
    console: ConsoleRelay | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.front or self.dispatch)(scope, receive, send)

    async def dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self.metered:
            await self.metered[scope["path"]](scope, receive, send)
        elif self.console is not None and scope["type"] == "http" and is_for_console(scope["path"]):
            await self.console(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = build_openapi(self, DOCUMENTED)
        return self.openapi_schema


def create_app(services: Services) -> FastAPI:
    """Everything it does is in `services`; its lifespan runs what goes on beside the requests."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        running = [asyncio.create_task(run(), name=name) for name, run in services.background.items()]
        for task in running:
            task.add_done_callback(lambda ended: _note_end(services, ended))
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            if app.console is not None:
                await app.console.close()

    app = GatewayApp(
        title=TITLE, description=DESCRIPTION, version=VERSION, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.router.redirect_slashes = False
    settings = services.settings
    edge = partial(
        Edge,
        cell=settings.cell,
        clock=services.clock,
        ids=services.ids,
        body_bytes_max=settings.body_bytes_max,
        metrics=services.metrics,
        log=services.log,
    )
    metered = (chat_route(services), fim_route(services), embeddings_route(services))
    app.router.routes.extend(metered)
    app.metered = {route.path: edge(route.serve) for route in metered}
    app.front = with_cors(app.dispatch, settings.cors_origins)
    routers = [build(services) for build in ROUTERS]
    app.allowed = _methods(routers)
    for router in routers:
        app.include_router(router)
    app.include_router(docs_router(TITLE))
    if settings.console_socket is not None:
        app.console = ConsoleRelay(settings.console_socket, services.lifecycle, services.log)
    else:
        for router in console_routers(services, TITLE):
            app.include_router(router)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(edge)
    return app


def _methods(routers: Iterable[APIRouter]) -> Mapping[str, str]:
    """By path, as the header Allow lists them."""
    found: dict[str, set[str]] = {}
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute):
                found.setdefault(route.path, set()).update(route.methods or ())
    return {path: ", ".join(sorted(methods)) for path, methods in found.items()}


def _note_end(services: Services, running: "asyncio.Task[None]") -> None:
    """Without the exchange no answer arrives, without the watch no revocation: the process says so and is restarted."""
    if running.cancelled():
        return
    services.lifecycle.broken = True
    services.log.error("task_ended", task=running.get_name(), error=repr(running.exception()))


async def _http_exception(request: Request, error: Exception) -> Response:
    """What the router itself answers: unknown paths, and known ones with another verb."""
    assert isinstance(error, HTTPException)
    request_id = call_of(request.scope).request_id
    if error.status_code == NOT_FOUND.status:
        return _response(render_no_route(request_id))
    if error.status_code == METHOD_NOT_ALLOWED.status:
        assert isinstance(request.app, GatewayApp)
        path = route_of(request.scope)
        allow = request.app.allowed.get(path) or (error.headers or {}).get("Allow", "")
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"allow": allow})
        return _response(render_method_not_allowed(allow))
    return _response(render(PlatformError(BAD_REQUEST, str(error.detail)), request_id))


async def _invalid(request: Request, error: Exception) -> Response:
    """From routes that leave their parsing to FastAPI."""
    assert isinstance(error, RequestValidationError)
    found = tuple({name: entry[name] for name in ("type", "loc", "msg")} for entry in error.errors()[:DETAILS_MAX])
    return _response(
        render(PlatformError(VALIDATION, "The request is not valid.", details=found), call_of(request.scope).request_id)
    )


def _response(rendered: Rendered) -> Response:
    response = Response(rendered.body, status_code=rendered.status)
    response.raw_headers = rendered.headers
    return response
