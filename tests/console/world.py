"""People in front of the console's pages: logged in, with a role, reading pages and sending forms."""

import html
import re
from dataclasses import dataclass
from urllib.parse import unquote

import httpx

from gateway.accounts.access import OPERATOR
from gateway.accounts.members import set_role, set_workspace_role
from gateway.accounts.passwords import Passwords
from gateway.accounts.people import User
from gateway.accounts.roles import Role
from gateway.accounts.sessions import Origin, csrf_token, open_session
from gateway.accounts.users import create_user
from gateway.console.desk import NOTICE_COOKIE, SESSION_COOKIE
from tests.people_world import CHEAPEST

HERE = Origin("192.0.2.7", "a browser", "r1")


class ConsoleWorld:
    """`world` is the admin API's: tenants `ash` and `birch`, and an operator, over the same application."""

    def __init__(self, world) -> None:
        self.world = world
        self.accounts = world.accounts
        self.services = world.services
        self.ash, self.birch = world.tenants
        self.passwords = Passwords(CHEAPEST)

    def user(self, name, tenant=None, role=None, *, workspace=None, operator=False, password=None):
        """NAME@example.com with this role in the tenant, or only in one workspace of it."""
        kept = None if password is None else self.passwords.hash(password)
        made = self.accounts.do(
            create_user,
            f"{name}@example.com",
            name,
            ids=self.accounts.ids,
            is_operator=operator,
            password_hash=kept,
        ).id
        if role is not None and workspace is None:
            self.accounts.do(set_role, made, tenant.id, Role(role), access=OPERATOR)
        elif role is not None:
            self.accounts.do(set_workspace_role, made, workspace, Role(role), within=tenant.id, access=OPERATOR)
        return made

    def browser(self, user_id=None):
        """Logged in as this user, or as nobody."""
        transport = httpx.ASGITransport(self.world.app, client=("192.0.2.7", 1))
        client = httpx.AsyncClient(transport=transport, base_url="http://gateway")
        if user_id is None:
            return Browser(client, "")
        with self.accounts.database.unit_of_work() as session:
            user = session.get_one(User, user_id)
            logged_in = open_session(session, user, HERE, clock=self.accounts.clock, ids=self.accounts.ids)
        token = logged_in.token.get_secret_value()
        client.cookies.set(SESSION_COOKIE, token, path="/console")
        return Browser(client, token)

    def as_role(self, role, tenant=None):
        """A new member of a tenant in front of a browser."""
        tenant = tenant or self.ash
        return self.browser(self.user(f"{role}.{self.accounts.ids.token(4)}", tenant, role))

    def as_operator(self):
        return self.browser(self.user(f"operator.{self.accounts.ids.token(4)}", operator=True))


@dataclass
class Browser:
    client: httpx.AsyncClient
    token: str

    async def get(self, path, **options):
        return await self.client.get(f"/console{path}", **options)

    async def post(self, path, *, csrf=True, **fields):
        """A form of a page that this session has opened; a list is sent as several fields of one name."""
        sent = {name: value for name, value in fields.items() if value is not None}
        if csrf and self.token:
            sent["csrf"] = csrf_token(self.token)
        return await self.client.post(f"/console{path}", data=sent)

    @property
    def notice(self):
        """What the last form has left for the next page."""
        return unquote(self.client.cookies.get(NOTICE_COOKIE, ""))


def text_of(response):
    """What a person reads of a page."""
    assert response.headers["content-type"].startswith("text/html")
    body = re.sub(r"(?s)<(script|style|svg|head)\b.*?</\1>", " ", response.text)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())
