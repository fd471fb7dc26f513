"""All pages of the console."""

from fastapi import APIRouter

from gateway.accounts.door import Door
from gateway.accounts.passwords import Passwords
from gateway.console.audit import audit_router
from gateway.console.billing import billing_router
from gateway.console.chat import chat_router
from gateway.console.credit import credit_router
from gateway.console.desk import Console
from gateway.console.entrance import entrance_router
from gateway.console.experts import experts_router
from gateway.console.forgotten import forgotten_router
from gateway.console.journal import journal_router
from gateway.console.key_page import key_page_router
from gateway.console.keys import keys_router
from gateway.console.limits import limits_router
from gateway.console.links import links_router
from gateway.console.member import member_router
from gateway.console.members import members_router
from gateway.console.missing import missing_router
from gateway.console.organisation import organisation_router
from gateway.console.organisations import organisations_router
from gateway.console.overview import overview_router
from gateway.console.plans import plans_router
from gateway.console.pools import pools_router
from gateway.console.prices import prices_router
from gateway.console.profile import profile_router
from gateway.console.refused import refused_router
from gateway.console.request import request_router
from gateway.console.requests import requests_router
from gateway.console.revenue import revenue_router
from gateway.console.start import start_router
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
        requests_router(console),
        refused_router(console),
        request_router(console),
        chat_router(console),
        workspaces_router(console),
        profile_router(console, door),
        revenue_router(console),
        experts_router(console),
        pools_router(console),
        audit_router(console),
        billing_router(console),
        credit_router(console),
        journal_router(console),
        members_router(console),
        member_router(console),
        organisations_router(console),
        organisation_router(console),
        plans_router(console),
        prices_router(console),
        keys_router(console),
        key_page_router(console),
        limits_router(console),
        start_router(console),
        missing_router(console),
    ]
