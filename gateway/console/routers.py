"""All pages of the console."""

from fastapi import APIRouter

from gateway.accounts.door import Door
from gateway.accounts.passwords import Passwords
from gateway.console.audit import audit_router
from gateway.console.chat import chat_router
from gateway.console.desk import Console
from gateway.console.entrance import entrance_router
from gateway.console.forgotten import forgotten_router
from gateway.console.key_page import key_page_router
from gateway.console.keys import keys_router
from gateway.console.limits import limits_router
from gateway.console.links import links_router
from gateway.console.missing import missing_router
from gateway.console.overview import overview_router
from gateway.console.profile import profile_router
from gateway.console.revenue import revenue_router
from gateway.console.usage import usage_router
from gateway.console.workspaces import workspaces_router
from gateway.services import Services


def console_routers(services: Services, title: str) -> list[APIRouter]:
    console = Console(services, title)
    door = Door(services.database, Passwords(), clock=services.clock, ids=services.ids)
    # The last one takes every path that is left.
    return [
        console.assets.router(),
        entrance_router(console, door),
        links_router(console, door),
        forgotten_router(console),
        overview_router(console),
        usage_router(console),
        chat_router(console),
        workspaces_router(console),
        profile_router(console, door),
        revenue_router(console),
        audit_router(console),
        keys_router(console),
        key_page_router(console),
        limits_router(console),
        missing_router(console),
    ]
