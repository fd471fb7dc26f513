"""Pages from templates: one environment, autoescaped, with the same headers around every page."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from core.clock import Clock
from gateway.accounts.roles import Permission
from gateway.console import formats
from gateway.console.assets import Assets
from gateway.console.visitor import Place, Visitor

# Scripts and styles come from files of ours alone: what a page shows can never run.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around a page. `notice` is what was just done, told once; `path` marks the entry of the menu."""

    path: str
    visitor: Visitor | None = None
    place: Place | None = None
    notice: str = ""


class Pages:
    def __init__(self, assets: Assets, clock: Clock, title: str) -> None:
        self._clock = clock
        self._environment = Environment(
            loader=PackageLoader("gateway.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(asset=assets.url, product=title, Permission=Permission)
        self._environment.filters.update(
            {
                each.__name__: each
                for each in (
                    formats.money,
                    formats.money_short,
                    formats.count,
                    formats.count_short,
                    formats.percent,
                    formats.duration,
                    formats.moment,
                    formats.day,
                    formats.iso,
                    formats.ago,
                )
            }
        )

    def text(self, template: str, frame: Frame, context: Mapping[str, Any]) -> str:
        """Blocks: call it in a thread."""
        place, visitor = frame.place, frame.visitor
        return self._environment.get_template(template).render(
            frame=frame,
            place=place,
            visitor=visitor,
            csrf="" if visitor is None else visitor.csrf,
            zone="UTC" if place is None else place.zone,
            currency="" if place is None else place.currency,
            now_ms=self._clock.now_ms(),
            **context,
        )


def html(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> HTMLResponse:
    return HTMLResponse(text, status_code=status, headers={**HEADERS, **(headers or {})})
