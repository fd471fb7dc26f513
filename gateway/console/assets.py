"""The console's scripts, styles and pictures: read once, served under names that change with their content."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request
from starlette.responses import Response

from core.errors import NOT_FOUND, PlatformError

FOLDER = "/console/assets"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
YEAR = "public, max-age=31536000, immutable"
HOUR = "public, max-age=3600"
DIGEST_CHARS = 12
NAME_CHARS_MAX = 64


@dataclass(frozen=True, slots=True)
class Asset:
    body: bytes
    media_type: str
    digest: str


class Assets:
    def __init__(self) -> None:
        self._files: Mapping[str, Asset] = dict(_read(resources.files("gateway.console") / "assets", ""))

    def url(self, name: str) -> str:
        """Such as /console/assets/console.css?v=0123456789ab. Raises KeyError for a file that is not there."""
        return f"{FOLDER}/{name}?v={self._files[name].digest}"

    def router(self) -> APIRouter:
        router = APIRouter(include_in_schema=False)

        @router.get(FOLDER + "/{name:path}")
        async def asset(request: Request, name: str) -> Response:
            found = self._files.get(name)
            if found is None:
                raise PlatformError(NOT_FOUND, f"There is no file {name[:NAME_CHARS_MAX]} here.")
            kept = YEAR if request.query_params.get("v") == found.digest else HOUR
            return Response(found.body, media_type=found.media_type, headers={"cache-control": kept})

        return router


def _read(folder: Traversable, prefix: str) -> Iterator[tuple[str, Asset]]:
    for entry in folder.iterdir():
        suffix = entry.name[entry.name.rfind(".") :]
        if entry.is_dir():
            yield from _read(entry, f"{prefix}{entry.name}/")
        elif suffix in TYPES:
            body = entry.read_bytes()
            yield prefix + entry.name, Asset(body, TYPES[suffix], hashlib.sha256(body).hexdigest()[:DIGEST_CHARS])
