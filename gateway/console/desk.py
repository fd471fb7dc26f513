"""What every page does: who looks, from which session, at which organisation; work in SQL and templates in the
console's own few threads, so that opening pages never takes what requests need.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from fastapi import APIRouter, Request
from pydantic import BaseModel, SecretStr
from sqlalchemy.orm import Session
from starlette.responses import RedirectResponse, Response

from core.db import DatabaseUnavailableError
from core.errors import NOT_ALLOWED, UNAUTHORIZED, UNAVAILABLE, PlatformError
from gateway.accounts.generations import Generation, publish_generations
from gateway.accounts.roles import Permission
from gateway.accounts.sessions import LoggedIn, Origin, session_of, touch_session
from gateway.console.assets import Assets
from gateway.console.forms import check_origin, check_token, parse_form, read_form
from gateway.console.live import LiveParts
from gateway.console.pages import HEADERS, Frame, Pages, html
from gateway.console.route import console_route
from gateway.console.visitor import Place, Visitor, place_of
from gateway.desk import QUEUE_AWAY
from gateway.middleware import call_of
from gateway.routes.access import client_address
from gateway.services import Services

HOME = "/console"
LOGIN = "/console/login"
SESSION_COOKIE = "tramontane_session"
NOTICE_COOKIE = "tramontane_notice"
NOTICE_S = 60
NOTICE_CHARS_MAX = 300
THREADS = 2
WAITING_MAX = 64  # pages; more are told to come back

Answer = TypeVar("Answer")
Form = TypeVar("Form", bound=BaseModel)
Changed = tuple[Answer, Iterable[Generation]]


class Console:
    """One for each gateway process. `title` is what the installation is called on every page."""

    def __init__(self, services: Services, title: str) -> None:
        self.services = services
        self.assets = Assets()
        self.live = LiveParts(services.lifecycle, services.clock)
        self._pages = Pages(self.assets, services.clock, title)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="console")
        self._waiting = 0

    def router(self) -> APIRouter:
        """For a module of pages: errors become pages, and nothing of it stands in the public document."""
        return APIRouter(prefix=HOME, include_in_schema=False, route_class=console_route(self))

    async def visitor(self, request: Request) -> Visitor:
        """Raises PlatformError: UNAUTHORIZED without a session that lasts."""
        return await self.read(lambda session: self._visitor(session, request))

    async def enter(self, request: Request, organisation: str, needs: Permission | None = None) -> Place:
        """The organisation with this id. `needs`, if given, in the organisation as a whole or in a workspace of it:
        what is shown is then bounded by `Place.workspaces`. Raises PlatformError: UNAUTHORIZED, NOT_FOUND,
        NOT_ALLOWED.
        """

        def run(session: Session) -> Place:
            place = place_of(session, self._visitor(session, request), organisation)
            if needs is not None and not place.somewhere(needs):
                raise PlatformError(NOT_ALLOWED, f"Your role lacks the permission {needs.value}.")
            return place

        return await self.read(run)

    async def operator(self, request: Request) -> Visitor:
        """Raises PlatformError: UNAUTHORIZED, NOT_FOUND for anybody who is no operator."""
        visitor = await self.visitor(request)
        visitor.access.require_operator()
        return visitor

    async def form(self, request: Request, visitor: Visitor | None, model: type[Form]) -> Form:
        """After `enter`. `visitor` None: of a page without a session. Raises PlatformError."""
        check_origin(request, self.services.settings.public_url)
        fields = await read_form(request)
        if visitor is not None:
            check_token(request, fields, visitor.token.get_secret_value())
        return parse_form(model, fields)

    async def read(self, work: Callable[[Session], Answer]) -> Answer:
        def run() -> Answer:
            with self.services.database.reading() as session:
                return work(session)

        return await self.in_thread(run)

    async def change(self, work: Callable[[Session], Changed[Answer]]) -> Answer:
        """One unit of work; gateways are told after its commit, or learn it within a minute."""

        def run() -> Changed[Answer]:
            with self.services.database.unit_of_work() as session:
                return work(session)

        answer, generations = await self.in_thread(run)
        await self.tell(generations)
        return answer

    async def tell(self, generations: Iterable[Generation]) -> None:
        try:
            await publish_generations(self.services.keeper, generations)
        except QUEUE_AWAY as error:
            self.services.log.warning("generations not published", error=type(error).__name__)

    async def in_thread(self, run: Callable[[], Answer]) -> Answer:
        """Raises PlatformError (UNAVAILABLE) when SQL is away or too many pages wait."""
        if self._waiting >= WAITING_MAX:
            raise PlatformError(UNAVAILABLE, "Many pages are being opened at the moment.", retry_after_s=2)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run)
        except DatabaseUnavailableError as error:
            raise PlatformError(
                UNAVAILABLE, "The database cannot be reached at the moment.", retry_after_s=2
            ) from error
        finally:
            self._waiting -= 1

    async def page(
        self,
        request: Request,
        template: str,
        context: Mapping[str, Any],
        *,
        place: Place | None = None,
        visitor: Visitor | None = None,
        status: int = 200,
    ) -> Response:
        """Render a template. Within an organisation give `place`, else `visitor` if there is one."""
        who = visitor if place is None else place.visitor
        notice = unquote(request.cookies.get(NOTICE_COOKIE, ""))[:NOTICE_CHARS_MAX]
        frame = Frame(request.url.path, who, place, notice)
        response = html(await self.in_thread(lambda: self._pages.text(template, frame, context)), status)
        if notice:
            response.delete_cookie(NOTICE_COOKIE, path=HOME)
        return response

    async def refused(self, request: Request, error: PlatformError, title: str) -> Response:
        """The page of an error, or for a form sent by script the sentence that is shown beside it."""
        partial = "hx-request" in request.headers
        context = {"error": error, "title": title, "request_id": call_of(request.scope).request_id}
        frame = Frame(request.url.path)
        text = self._pages.text("parts/problem.html" if partial else "pages/error.html", frame, context)
        return html(text, error.kind.status)

    def broke(self, request: Request, error: Exception) -> None:
        request_id = call_of(request.scope).request_id
        self.services.log.error("page_failed", request_id=request_id, path=request.url.path, exc_info=error)

    async def fragment(
        self,
        request: Request,
        template: str,
        context: Mapping[str, Any],
        place: Place | None = None,
        *,
        visitor: Visitor | None = None,
    ) -> str:
        """A part of a page, for live updates. Within an organisation give `place`, else `visitor`."""
        frame = Frame(request.url.path, visitor if place is None else place.visitor, place)
        return await self.in_thread(lambda: self._pages.text(template, frame, context))

    def done(self, request: Request, path: str, notice: str = "") -> Response:
        """After a form: go to that page and say there, once, what was done."""
        if "hx-request" in request.headers:
            response = Response(status_code=204, headers={"hx-redirect": path, **HEADERS})
        else:
            response = RedirectResponse(path, status_code=303, headers=HEADERS)
        if notice:
            shown = quote(notice[:NOTICE_CHARS_MAX])
            secure = self._is_secure(request)
            response.set_cookie(
                NOTICE_COOKIE, shown, max_age=NOTICE_S, path=HOME, httponly=True, secure=secure, samesite="lax"
            )
        return response

    def admit(self, request: Request, response: Response, logged_in: LoggedIn) -> Response:
        """Give the browser its session."""
        response.set_cookie(
            SESSION_COOKIE,
            logged_in.token.get_secret_value(),
            max_age=max(0, (logged_in.expires_ms - self.services.clock.now_ms()) // 1_000),
            path=HOME,
            httponly=True,
            secure=self._is_secure(request),
            samesite="lax",
        )
        return response

    def origin(self, request: Request) -> Origin:
        agent = request.headers.get("user-agent", "")
        return Origin(client_address(request.scope), agent, call_of(request.scope).request_id)

    def public_url(self, request: Request) -> str:
        """Where browsers find this gateway; without a setting, where this one found it."""
        return self.services.settings.public_url or f"{request.url.scheme}://{request.url.netloc}"

    def _is_secure(self, request: Request) -> bool:
        return request.url.scheme == "https" or self.services.settings.public_url.startswith("https:")

    def _visitor(self, session: Session, request: Request) -> Visitor:
        token = request.cookies.get(SESSION_COOKIE, "")
        signed_in = session_of(session, token, self.services.clock) if token else None
        if signed_in is None:
            raise PlatformError(UNAUTHORIZED, "Log in first.")
        if signed_in.touch_due:
            self._threads.submit(self._touch, signed_in.id)
        return Visitor(signed_in, self.origin(request), SecretStr(token))

    def _touch(self, session_id: str) -> None:
        try:
            with self.services.database.unit_of_work() as session:
                touch_session(session, session_id, self.services.clock)
        except DatabaseUnavailableError as error:
            self.services.log.warning("session not touched", error=str(error))
