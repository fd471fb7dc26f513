"""GET /docs: the OpenAPI document in Swagger UI, from files in the tree."""

from importlib import resources

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import Response

from core.errors import NOT_FOUND, PlatformError

ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
FOLDER = "/docs/assets"
NO_ICON = "data:,"
YEAR = "public, max-age=31536000, immutable"
INLINE = "'self' 'unsafe-inline'"  # the page starts Swagger UI with a few lines of its own
PAGE_POLICY = f"default-src 'self'; script-src {INLINE}; style-src {INLINE}; img-src 'self' data:"


def docs_router(title: str) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    files = {name: (resources.files("gateway") / "assets" / name).read_bytes() for name in ASSETS}
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=title,
        swagger_js_url=f"{FOLDER}/swagger-ui-bundle.js",
        swagger_css_url=f"{FOLDER}/swagger-ui.css",
        swagger_favicon_url=NO_ICON,
    )
    page.headers["content-security-policy"] = PAGE_POLICY

    @router.get("/docs")
    async def docs(_request: Request) -> Response:
        return page

    @router.get(FOLDER + "/{name}")
    async def asset(_request: Request, name: str) -> Response:
        if name not in files:
            raise PlatformError(NOT_FOUND, f"There is no file {name[:64]} here.")
        return Response(files[name], media_type=ASSETS[name], headers={"cache-control": YEAR})

    return router
