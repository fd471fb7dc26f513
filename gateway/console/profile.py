"""Your account: name, password, where you are logged in, where you belong."""

from fastapi import APIRouter, Request
from pydantic import Field, SecretStr
from sqlalchemy.orm import Session
from starlette.responses import Response

from core.clock import Clock
from core.errors import CONFLICT, NOT_FOUND, UNAUTHORIZED, VALIDATION, PlatformError
from gateway.accounts.door import Door
from gateway.accounts.memberships import Membership, memberships_of
from gateway.accounts.models import NAME_LENGTH_MAX
from gateway.accounts.passwords import LENGTH_MAX, LENGTH_MIN
from gateway.accounts.sessions import AGE_MS_MAX, IDLE_MS_MAX, end_sessions, list_sessions
from gateway.accounts.users import rename_user
from gateway.console.desk import HOME, Changed, Console
from gateway.console.entrance import Fields, NoFields
from gateway.console.listing import answer_table
from gateway.console.table import Asked, Column, Row, make_table
from gateway.console.visitor import Visitor

PROFILE = f"{HOME}/profile"
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
BROWSERS = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)
COLUMNS = (
    Column("browser", "Browser", "cell", lambda row: row["browser"]),
    Column("address", "Address"),
    Column("seen_ms", "Last seen", "time"),
    Column("created_ms", "Logged in", "time"),
    Column("actions", "", "cell", lambda _: "", sortable=False),
)


class NameForm(Fields):
    name: str = Field(max_length=NAME_LENGTH_MAX)


class PasswordForm(Fields):
    """`password` is the new one: the name under which its refusals come."""

    old_password: SecretStr = Field(max_length=LENGTH_MAX)
    password: SecretStr = Field(max_length=LENGTH_MAX)


def profile_router(console: Console, door: Door) -> APIRouter:
    router = console.router()
    clock = console.services.clock
    _add_changes(router, console, door)
    _add_endings(router, console)

    @router.get("/profile")
    async def show(request: Request, asked: Asked) -> Response:
        visitor = await console.visitor(request)

        rows, memberships = await console.read(lambda session: _read(session, visitor, clock))
        table = make_table("sessions", PROFILE, COLUMNS, rows, asked)
        context = {
            "memberships": memberships,
            "password_length_min": LENGTH_MIN,
            "idle_h": IDLE_MS_MAX // HOUR_MS,
            "age_days": AGE_MS_MAX // DAY_MS,
        }
        return await answer_table(console, request, "pages/profile.html", table, visitor=visitor, context=context)

    return router


def _add_changes(router: APIRouter, console: Console, door: Door) -> None:
    clock = console.services.clock

    @router.post("/profile/name")
    async def rename(request: Request) -> Response:
        visitor = await console.visitor(request)
        asked = await console.form(request, visitor, NameForm)

        def run(session: Session) -> Changed[None]:
            rename_user(session, visitor.signed_in.user, asked.name, actor=visitor.actor, clock=clock)
            return None, ()

        await console.change(run)
        return console.done(request, PROFILE, "Your name is changed.")

    @router.post("/profile/password")
    async def change_password(request: Request) -> Response:
        visitor = await console.visitor(request)
        asked = await console.form(request, visitor, PasswordForm)
        old, new = asked.old_password.get_secret_value(), asked.password.get_secret_value()
        try:
            await console.in_thread(lambda: door.change_password(visitor.signed_in, old, new, visitor.origin))
        except PlatformError as error:
            if error.kind is not UNAUTHORIZED:
                raise
            raise PlatformError(VALIDATION, error.message, param="old_password") from error  # not: log in first
        return console.done(request, PROFILE, "Your password is changed. You are logged out everywhere else.")


def _add_endings(router: APIRouter, console: Console) -> None:
    clock = console.services.clock

    @router.post("/profile/sessions/end")
    async def end_others(request: Request) -> Response:
        visitor = await console.visitor(request)
        await console.form(request, visitor, NoFields)
        ended = await console.change(lambda session: _end(session, visitor, clock, keep=visitor.signed_in.id))
        return console.done(request, PROFILE, f"{ended} other session{'' if ended == 1 else 's'} ended.")

    @router.post("/profile/sessions/{session_id}/end")
    async def end_one(request: Request, session_id: str) -> Response:
        visitor = await console.visitor(request)
        await console.form(request, visitor, NoFields)
        if session_id == visitor.signed_in.id:
            raise PlatformError(CONFLICT, "This is the session that you are in: log out instead.")
        if not await console.change(lambda session: _end(session, visitor, clock, only=session_id)):
            raise PlatformError(NOT_FOUND, "This session has ended already.")
        return console.done(request, PROFILE, "The session is ended.")


def _read(session: Session, visitor: Visitor, clock: Clock) -> tuple[list[Row], list[Membership]]:
    user = visitor.signed_in.user
    rows: list[Row] = [
        {
            "id": each.id,
            "browser": browser_name(each.user_agent),
            "address": each.address,
            "seen_ms": each.seen_ms,
            "created_ms": each.created_ms,
            "here": each.id == visitor.signed_in.id,
        }
        for each in list_sessions(session, user, clock)
    ]
    return rows, memberships_of(session, user)


def _end(
    session: Session, visitor: Visitor, clock: Clock, *, only: str | None = None, keep: str | None = None
) -> Changed[int]:
    user = visitor.signed_in.user
    return end_sessions(session, user, actor=visitor.actor, clock=clock, only=only, keep=keep), ()


def browser_name(user_agent: str) -> str:
    """Such as "Firefox on Linux": enough to know one's own again."""
    browser = next((name for sign, name in BROWSERS if sign in user_agent), "")
    system = next((name for sign, name in SYSTEMS if sign in user_agent), "")
    if browser and system:
        return f"{browser} on {system}"
    return browser or system or user_agent[:40] or "Unknown"
