"""The admin API over a real database: two tenants with one of each object, an operator, and what each route is sent."""

import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import structlog

from billing.price_lists import seed_prices
from core.ids import SystemIds
from core.meter.refusals import MemoryRefusalLog
from core.queue.memory import MemoryBroker, MemoryCounterStore, MemoryCreditStore, MemoryPools, MemoryQueueKeeper
from core.queue.rules import RuleKind
from core.queue.settings import queue_settings
from core.text_counter import WordCounter
from core.tokens import ChatTokenizer
from gateway.accounts.access import OPERATOR as ANYTHING
from gateway.accounts.invitations import invite
from gateway.accounts.limits import LimitTerms, Subject, SubjectKind, set_limit
from gateway.accounts.members import create_service_account
from gateway.accounts.opening import open_account
from gateway.accounts.organisations import create_organisation
from gateway.accounts.principals import PrincipalSettings, SqlPrincipals
from gateway.accounts.roles import Role
from gateway.accounts.workspaces import create_workspace, default_workspace_of
from gateway.admission import AdmissionSettings, Admitter
from gateway.app import create_app
from gateway.metrics import GatewayMetrics
from gateway.refusal_buffer import RefusalBuffer
from gateway.services import Lifecycle, Services
from gateway.settings import GatewaySettings
from tests.accounts_world import ACTOR, PEPPERS, AccountsWorld
from tests.conformance.document import CheckedClient, Document
from tests.e2e.gateway_world import CATALOG

PREFIX = "/v1/admin"
TIERS = [tier.name for tier in CATALOG.tiers]
TOKENIZER = ChatTokenizer.load("v1")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass
class Tenant:
    """`keys` by their scope: what is sent as the bearer."""

    world: "AdminWorld"
    name: str
    id: str
    keys: dict[str, str] = field(default_factory=dict)
    _numbers: itertools.count = field(default_factory=itertools.count)

    def new(self, parameter):
        """The id of a new object of the kind that this part of a path names."""
        accounts, name = self.world.accounts, f"{self.name} {parameter} {next(self._numbers)}"
        by = {"access": ANYTHING, "ids": accounts.ids}
        match parameter:
            case "organisation_id":
                return self.id
            case "workspace_id":
                return accounts.do(create_workspace, self.id, name, ids=accounts.ids).id
            case "key_id":
                return accounts.key(name, workspace=self.see(default_workspace_of), within=self.id).id
            case "limit_id":
                subject = Subject(SubjectKind.WORKSPACE, self.new("workspace_id"))
                terms = LimitTerms(RuleKind.CONCURRENCY, 3)
                return accounts.do(set_limit, subject, terms, within=None, known_tiers=TIERS, ids=accounts.ids).id
            case "user_id":
                return accounts.do(create_service_account, self.id, name, Role.VIEWER, **by).id
            case "invite_id":
                address = name.replace(" ", ".") + "@example.com"
                return accounts.do(invite, address, self.id, Role.VIEWER, **by).id
        raise KeyError(f"no test knows how to make a {parameter}")

    def see(self, read, *arguments, **options):
        return self.world.accounts.see(read, self.id, *arguments, **options)

    async def ask(self, method, path, *, scope="admin:write", **options):
        return await self.world.ask(method, path, key=self.keys[scope], **options)


class AdminWorld:
    def __init__(self, accounts, services, client) -> None:
        self.accounts = accounts
        self.services = services
        self.client = client
        self.operator = accounts.key("operator", scopes=("operator",)).key.get_secret_value()
        self.tenants = [self._tenant(name) for name in ("ash", "birch")]

    async def ask(self, method, path, *, key=None, body=None, **options):
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        headers |= options.pop("headers", {})
        return await self.client.request(method, PREFIX + path, headers=headers, json=body, **options)

    async def operate(self, method, path, **options):
        return await self.ask(method, path, key=self.operator, **options)

    def _tenant(self, name):
        accounts = self.accounts
        with accounts.database.unit_of_work() as session:
            clock = accounts.clock
            done = create_organisation(session, name, actor=ACTOR, clock=clock, ids=accounts.ids)
            open_account(session, done.id, "EUR", accounts.clock)
        tenant = Tenant(self, name, done.id)
        workspace = tenant.see(default_workspace_of)
        for scope in ("admin:write", "admin:read", "inference", "usage:read"):
            made = accounts.key(f"{name} {scope}", workspace=workspace, scopes=(scope,))
            tenant.keys[scope] = made.key.get_secret_value()
        return tenant


@asynccontextmanager
async def admin_world(database, mailer=None):
    accounts = AccountsWorld(database)
    accounts.ids = SystemIds(accounts.clock)  # so that secrets are such as nothing else contains
    with database.unit_of_work() as session:
        seed_prices(session, CATALOG, accounts.clock)
    services = _services(accounts, mailer)
    app = create_app(services)
    transport = httpx.ASGITransport(app, client=("192.0.2.7", 1))
    async with CheckedClient(Document(app.openapi()), transport=transport, base_url="http://gateway") as client:
        made = AdminWorld(accounts, services, client)
        made.app = app
        yield made


def _services(accounts, mailer):
    """All that the admin API uses; there is no queue behind it, so nothing can be inferred."""
    clock, ids, database = accounts.clock, accounts.ids, accounts.database
    log = structlog.wrap_logger(None, processors=[_drop], wrapper_class=structlog.stdlib.BoundLogger)
    settings = GatewaySettings(metrics_dir=None)
    broker = MemoryBroker(queue_settings(CATALOG, settings.cell, settings.lease_ms), clock)
    refusals = MemoryRefusalLog(clock)
    admitter = Admitter(
        catalog=CATALOG,
        tokenizers={"auto": TOKENIZER, "manual": TOKENIZER},
        counters={"embed": WordCounter()},
        cell=settings.cell,
        ids=ids,
        clock=clock,
        submitter="gateway-1",
        settings=AdmissionSettings(),
    )
    return Services(
        settings=settings,
        catalog=CATALOG,
        principals=SqlPrincipals(database, PEPPERS, clock, TIERS, PrincipalSettings(lookup_s=60)),
        admitter=admitter,
        exchange=None,
        gate=None,
        keeper=MemoryQueueKeeper(broker),
        counters=MemoryCounterStore(broker, clock),
        credit=MemoryCreditStore(broker),
        refusals=refusals,
        refused=RefusalBuffer(refusals, log),
        pools=MemoryPools(broker, clock),
        peppers=PEPPERS,
        mailer=mailer,
        database=database,
        background={},
        check_database=None,
        metrics=GatewayMetrics(None),
        lifecycle=Lifecycle(),
        clock=clock,
        ids=ids,
        log=log,
    )


def _drop(_logger, _method, _event):
    raise structlog.DropEvent


def operations(app):
    """(method, path without the prefix) of every operation of the admin API that the document tells of."""
    return sorted(
        (method.upper(), path.removeprefix(PREFIX))
        for path, found in app.openapi()["paths"].items()
        if path.startswith(PREFIX)
        for method in found
    )
