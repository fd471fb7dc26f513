"""One-time links: invitations, the first log-in, another password."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import Field, SecretStr
from sqlalchemy.orm import Session
from starlette.responses import Response

from core.errors import UNAUTHORIZED, PlatformError
from gateway.accounts.door import Door
from gateway.accounts.invitations import accept_invitation
from gateway.accounts.links import Offer, offer_of
from gateway.accounts.passwords import LENGTH_MAX, LENGTH_MIN
from gateway.console.desk import HOME, Changed, Console
from gateway.console.entrance import TEXT_MAX, Fields, NoFields

LINK_CHARS_MAX = 128

Token = Annotated[str, Path(max_length=LINK_CHARS_MAX)]


class LinkForm(Fields):
    password: SecretStr = Field(max_length=LENGTH_MAX)
    name: str = Field(default="", max_length=128)
    email: str = Field(default="", max_length=TEXT_MAX)


def links_router(console: Console, door: Door) -> APIRouter:
    router = console.router()
    services = console.services

    @router.get("/links/{token}")
    async def show_link(request: Request, token: Token) -> Response:
        offer: Offer = await console.read(lambda session: offer_of(session, token, services.clock))
        here = None
        if offer.has_account:
            try:
                here = await console.visitor(request)
            except PlatformError as error:
                if error.kind is not UNAUTHORIZED:
                    raise
        fits = here is not None and here.signed_in.email == offer.email
        context = {"offer": offer, "token": token, "fits": fits, "password_length_min": LENGTH_MIN}
        return await console.page(request, "pages/link.html", context, visitor=here if fits else None)

    @router.post("/links/{token}")
    async def use_link(request: Request, token: Token) -> Response:
        """Choose a password, and be logged in."""
        asked = await console.form(request, None, LinkForm)
        origin = console.origin(request)
        password = asked.password.get_secret_value()
        logged_in, change = await console.in_thread(
            lambda: door.redeem(token, password, origin, name=asked.name, email=asked.email)
        )
        await console.tell(change.publish)
        return console.admit(request, console.done(request, HOME, "Welcome."), logged_in)

    @router.post("/links/{token}/accept")
    async def accept(request: Request, token: Token) -> Response:
        """An invitation of somebody who has an account."""
        visitor = await console.visitor(request)
        await console.form(request, visitor, NoFields)

        def run(session: Session) -> Changed[None]:
            done = accept_invitation(session, token, visitor.signed_in, visitor.origin, services.clock)
            return None, done.publish

        await console.change(run)
        return console.done(request, HOME, "The invitation is accepted.")

    return router
