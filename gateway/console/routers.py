"""All pages of the console."""

from fastapi import APIRouter

from gateway.accounts.door import Door
from gateway.accounts.passwords import Passwords
from gateway.console.desk import Console
from gateway.console.entrance import entrance_router
from gateway.console.forgotten import forgotten_router
from gateway.console.links import links_router
from gateway.console.missing import missing_router
from gateway.console.overview import overview_router
from gateway.console.profile import profile_router
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
        workspaces_router(console),
        profile_router(console, door),
        missing_router(console),
    ]
