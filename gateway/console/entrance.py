"""Where people come in and go out."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from sqlalchemy.orm import Session
from starlette.responses import RedirectResponse, Response

from gateway.accounts.door import Door
from gateway.accounts.passwords import LENGTH_MAX
from gateway.accounts.sessions import log_out
from gateway.console.desk import HOME, LOGIN, SESSION_COOKIE, Changed, Console
from gateway.console.visitor import organisations_of, place_path

TEXT_MAX = 254

NextPage = Annotated[str, Query(max_length=1_000)]


class Fields(BaseModel):
    """What a form may have, and nothing else."""

    model_config = ConfigDict(extra="forbid")


class LoginForm(Fields):
    email: str = Field(max_length=TEXT_MAX)
    password: SecretStr = Field(max_length=LENGTH_MAX)
    next: str = Field(default="", max_length=1_000)


class NoFields(Fields):
    """A form that is only a button."""


def entrance_router(console: Console, door: Door) -> APIRouter:
    router = console.router()
    services = console.services

    @router.get("")
    async def home(request: Request) -> Response:
        """The first page of the first organisation; an operator without one begins with all of them."""
        visitor = await console.visitor(request)
        found = await console.read(lambda session: organisations_of(session, visitor.access))
        target = place_path(found[0].id) if found else f"{HOME}/nowhere"
        return RedirectResponse(f"{HOME}/operator" if visitor.access.operator and not found else target, 303)

    @router.get("/nowhere")
    async def nowhere(request: Request) -> Response:
        visitor = await console.visitor(request)
        return await console.page(request, "pages/nowhere.html", {}, visitor=visitor)

    @router.get("/login")
    async def show_login(request: Request, next: NextPage = "") -> Response:  # noqa: A002 - the query's own name
        context = {"next": next, "mail": services.mailer is not None}
        return await console.page(request, "pages/login.html", context)

    @router.post("/login")
    async def log_in(request: Request) -> Response:
        asked = await console.form(request, None, LoginForm)
        origin = console.origin(request)
        logged_in = await console.in_thread(lambda: door.log_in(asked.email, asked.password.get_secret_value(), origin))
        return console.admit(request, console.done(request, own_page(asked.next)), logged_in)

    @router.post("/logout")
    async def leave(request: Request) -> Response:
        visitor = await console.visitor(request)
        await console.form(request, visitor, NoFields)

        def run(session: Session) -> Changed[None]:
            log_out(session, visitor.signed_in, visitor.origin, services.clock)
            return None, ()

        await console.change(run)
        response = console.done(request, LOGIN, "You are logged out.")
        response.delete_cookie(SESSION_COOKIE, path=HOME)
        return response

    return router


def own_page(path: str) -> str:
    """Where to go after the log-in: never to another site."""
    inside = path == HOME or path.startswith(f"{HOME}/")
    return path if inside and "\\" not in path and path.isprintable() else HOME
