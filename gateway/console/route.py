"""A route of the console: whatever is refused becomes a page, or a sentence beside the form that asked."""

from collections.abc import Callable, Coroutine
from typing import Any, Protocol
from urllib.parse import urlencode

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import RedirectResponse, Response

from core.errors import INTERNAL, NOT_ALLOWED, NOT_FOUND, UNAUTHORIZED, VALIDATION, PlatformError
from gateway.console.pages import HEADERS
from gateway.replies import ClientLeft

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
TITLES = {NOT_FOUND.status: "Not found", NOT_ALLOWED.status: "Not allowed", VALIDATION.status: "That cannot be read"}
BROKEN = PlatformError(INTERNAL, "Something broke on our side; it is in the log under the id below.")


class Renderer(Protocol):
    async def refused(self, request: Request, error: PlatformError, title: str) -> Response: ...

    def broke(self, request: Request, error: Exception) -> None: ...


def console_route(renderer: Renderer) -> type[APIRoute]:
    """The class of routes whose errors this renderer shows."""

    class ConsoleRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            inner = super().get_route_handler()

            async def handle(request: Request) -> Response:
                try:
                    return await inner(request)
                except ClientLeft:
                    raise
                except PlatformError as error:
                    return await _shown(renderer, request, error)
                except RequestValidationError:
                    told = PlatformError(VALIDATION, "The address of this page has a part that cannot be read.")
                    return await _shown(renderer, request, told)
                except Exception as error:  # noqa: BLE001 - the last stop of a page: logged with its id, told without its insides
                    renderer.broke(request, error)
                    return await _shown(renderer, request, BROKEN)

            return handle

    return ConsoleRoute


async def _shown(renderer: Renderer, request: Request, error: PlatformError) -> Response:
    partial = "hx-request" in request.headers
    if error.kind is UNAUTHORIZED and not request.url.path.startswith("/console/login"):
        target = (
            f"/console/login?{urlencode({'next': request.url.path})}" if request.method == "GET" else "/console/login"
        )
        if partial:
            return Response(status_code=401, headers={"hx-redirect": "/console/login", **HEADERS})
        return RedirectResponse(target, status_code=303, headers=HEADERS)
    title = TITLES.get(error.kind.status, "That did not work")
    response = await renderer.refused(request, error, title)
    if error.retry_after_s is not None:
        response.headers["retry-after"] = str(error.retry_after_s)
    return response
