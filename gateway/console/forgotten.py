"""A forgotten password: a link by mail, where there is mail."""

from fastapi import APIRouter, Request
from pydantic import Field
from sqlalchemy.orm import Session
from starlette.responses import Response

from core.errors import NOT_ALLOWED, PlatformError
from gateway.accounts.invitations import forgotten_password
from gateway.accounts.letters import deliver
from gateway.accounts.links import Link
from gateway.accounts.mail import MailError
from gateway.console.desk import LOGIN, Changed, Console
from gateway.console.entrance import TEXT_MAX, Fields


class ForgottenForm(Fields):
    email: str = Field(max_length=TEXT_MAX)


def forgotten_router(console: Console) -> APIRouter:
    router = console.router()
    services = console.services

    @router.get("/forgotten")
    async def show_forgotten(request: Request) -> Response:
        return await console.page(request, "pages/forgotten.html", {"mail": services.mailer is not None})

    @router.post("/forgotten")
    async def ask_for_link(request: Request) -> Response:
        """The same answer whether there is such an account or not."""
        asked = await console.form(request, None, ForgottenForm)
        if services.mailer is None:
            raise PlatformError(NOT_ALLOWED, "This installation sends no mail: ask an administrator for a link.")
        origin = console.origin(request)

        def run(session: Session) -> Changed[Link | None]:
            made = forgotten_password(session, asked.email, origin, clock=services.clock, ids=services.ids)
            return made, ()

        link = await console.change(run)
        if link is not None:
            try:
                await console.in_thread(lambda: deliver(link, services.mailer, console.public_url(request)))
            except MailError as error:
                services.log.warning("letter not sent", error=str(error))
        return console.done(request, LOGIN, "If there is such an account, a link is on its way.")

    return router
