"""Fifty organisations with people, workspaces and keys, always the same."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from billing.customers import Customer
from core.queue.rules import RuleKind
from gateway.accounts.limits import SubjectKind
from gateway.accounts.models import ACTIVE, SUSPENDED, ApiKey, AuditEntry, KeySecret, Limit, Organisation, Workspace
from gateway.accounts.people import PERSON, Member, User
from gateway.accounts.roles import Role
from gateway.accounts.scopes import INFERENCE

DAY_MS = 86_400_000
NAMES = (
    "Alder Analytics", "Amberlight Games", "Banca Litoranea", "Beacon Health", "Blaise & Fils", "Bluefin Logistics",
    "Brennwerk", "Cantina Vera", "Castellan Insurance", "Cedar Legal", "Cirrus Travel", "Clara Diagnostics",
    "Copperfield Press", "Dunmore Robotics", "Elbe Maritime", "Elysee Conseil", "Fjord Energy", "Fontaine Education",
    "Galileo Space", "Granary Foods", "Halcyon Media", "Harbour Bank", "Helvetia Data", "Iberis Telecom",
    "Ironbridge Steel", "Jasmin Cosmetics", "Juniper Housing", "Kestrel Aviation", "Kyoto Tea", "Lantern Search",
    "Lumen Optics", "Maple & Stone", "Meridian Freight", "Minerva University", "Northwind Retail", "Oakline Furniture",
    "Orchard Payments", "Pelican Courier", "Polder Water", "Quay Street Law", "Rosewood Hotels", "Saffron Kitchens",
    "Silverbirch Care", "Sonnenhof Farms", "Tessera Mosaics", "Tidewater Shipping", "Umbra Security", "Vega Motors",
    "Willow Pharma", "Zephyr Wind",
)  # fmt: skip
FIRST = ("Ada", "Bruno", "Chiara", "David", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Klara", "Luca", "Maya")
LAST = ("Abbott", "Bianchi", "Costa", "Dubois", "Eriksen", "Fischer", "Garcia", "Haddad", "Ito", "Jensen", "Kaya", "Li")
WORKSPACES = ("Production", "Research", "Support assistant", "Search", "Document processing")
KEYS = ("Server", "Batch jobs", "Staging", "Notebook")
ZONES = ("UTC", "Europe/Paris", "Europe/Berlin", "America/New_York", "Asia/Tokyo", "Asia/Kolkata")
ACTS = ("api_key.create", "api_key.rotate", "api_key.revoke", "limit.set", "member.set_role", "workspace.rename")
PAID_LATER = 10  # every such organisation pays afterwards
SUSPENDED_NUMBER = 41


@dataclass(frozen=True, slots=True)
class Client:
    """A key as traffic uses it. `tiers`: the one that it mostly asks, and another."""

    key_id: str
    workspace: str
    tiers: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Company:
    number: int
    id: str
    postpaid: bool
    clients: tuple[Client, ...]
    people: tuple[str, ...]


def token(chance: random.Random, digits: int = 32) -> str:
    return f"{chance.getrandbits(4 * digits):0{digits}x}"


def seed_people(session: Session, tiers: Sequence[str], plan: str, currency: str, start_ms: int) -> list[Company]:
    chance = random.Random(7)
    return [_company(session, chance, number, tiers, plan, currency, start_ms) for number in range(len(NAMES))]


def _company(
    session: Session,
    chance: random.Random,
    number: int,
    tiers: Sequence[str],
    plan: str,
    currency: str,
    start_ms: int,
) -> Company:
    organisation, name = token(chance), NAMES[number]
    status = SUSPENDED if number == SUSPENDED_NUMBER else ACTIVE
    own = {"id": organisation, "name": name, "plan": plan, "status": status, "lenient": number % 4 == 0}
    session.execute(insert(Organisation), [own | {"generation": 1, "created_ms": start_ms}])
    customer = {"organisation": organisation, "name": name, "address": "", "email": f"billing@{_domain(name)}"}
    zone = ZONES[number % len(ZONES)]
    session.execute(insert(Customer), [customer | {"currency": currency, "time_zone": zone, "created_ms": start_ms}])
    people = _people(session, chance, organisation, name, start_ms)
    clients = _clients(session, chance, organisation, people, tiers, start_ms)
    limit = {"subject_kind": SubjectKind.ORGANISATION.value, "subject_id": organisation, "tier": "", "hard": True}
    rule = {"kind": RuleKind.REQUESTS_PER_MINUTE.value, "value": 6_000}
    session.execute(insert(Limit), [limit | rule | {"id": token(chance), "created_ms": start_ms}])
    return Company(number, organisation, number % PAID_LATER == 3, tuple(clients), tuple(people))


def _domain(name: str) -> str:
    return f"{''.join(letter for letter in name.lower() if letter.isalnum())}.example"


def _people(session: Session, chance: random.Random, organisation: str, company: str, start_ms: int) -> list[str]:
    users: list[dict[str, Any]] = []
    members: list[dict[str, Any]] = []
    roles = [Role.OWNER, Role.ADMIN, Role.BILLING, *[Role.DEVELOPER] * 5, Role.VIEWER]
    for number, role in enumerate(roles[: chance.randint(3, len(roles))]):
        user, name = token(chance), f"{chance.choice(FIRST)} {chance.choice(LAST)}"
        email = f"{name.lower().replace(' ', '.')}.{number}@{_domain(company)}"
        plain: dict[str, Any] = {
            "id": user,
            "kind": PERSON,
            "email": email,
            "name": name,
            "password_hash": None,
            "is_operator": False,
        }
        users.append(plain | {"disabled_ms": None, "created_ms": start_ms, "last_login_ms": None})
        members.append({"user_id": user, "organisation_id": organisation, "role": role.value, "created_ms": start_ms})
    session.execute(insert(User), users)
    session.execute(insert(Member), members)
    return [user["id"] for user in users]


def _clients(
    session: Session,
    chance: random.Random,
    organisation: str,
    people: Sequence[str],
    tiers: Sequence[str],
    start_ms: int,
) -> list[Client]:
    workspaces, keys, secrets, clients = [], [], [], []
    for number, name in enumerate(("default", *WORKSPACES[: chance.randint(1, len(WORKSPACES))])):
        workspace = token(chance)
        row: dict[str, Any] = {
            "id": workspace,
            "organisation_id": organisation,
            "name": name,
            "is_default": number == 0,
        }
        workspaces.append(row | {"lenient": None, "created_ms": start_ms, "archived_ms": None})
        for label in KEYS[: chance.randint(1, len(KEYS) - 1)]:
            key_id, owner = token(chance, 10), chance.choice(people)
            key: dict[str, Any] = {
                "id": key_id,
                "workspace_id": workspace,
                "name": f"{name} {label.lower()}",
                "owner": owner,
            }
            key |= {"scopes": [INFERENCE], "tiers": None, "networks": [], "created_by": f"user:{owner}"}
            keys.append(key | {"created_ms": start_ms, "expires_ms": None, "revoked_ms": None})
            secret: dict[str, Any] = {"digest": f"1:{token(chance, 64)}", "key_id": key_id, "hint": token(chance, 4)}
            secrets.append(secret | {"created_ms": start_ms, "expires_ms": None})
            main = tiers[chance.choices(range(len(tiers)), [4, 3, 2, 1][: len(tiers)])[0]]
            clients.append(Client(key_id, workspace, (main, chance.choice(tiers))))
    for model, rows in ((Workspace, workspaces), (ApiKey, keys), (KeySecret, secrets)):
        session.execute(insert(model), rows)
    return clients


def seed_audit(session: Session, companies: Sequence[Company], count: int, start_ms: int, end_ms: int) -> None:
    """Acts of members, evenly over the time, in its order."""
    chance = random.Random(11)
    for at in range(0, count, 1_000):
        rows = [
            _act(chance, companies, start_ms + (end_ms - start_ms) * number // count)
            for number in range(at, min(at + 1_000, count))
        ]
        session.execute(insert(AuditEntry), rows)


def _act(chance: random.Random, companies: Sequence[Company], at_ms: int) -> dict[str, Any]:
    company = chance.choice(companies)
    action = chance.choice(ACTS)
    kind = action.partition(".")[0]
    target = chance.choice(company.clients)
    return {
        "at_ms": at_ms,
        "actor_kind": "user",
        "actor_id": chance.choice(company.people),
        "actor_name": f"{chance.choice(FIRST)} {chance.choice(LAST)}",
        "organisation": company.id,
        "action": action,
        "target_kind": kind,
        "target_id": target.key_id if kind == "api_key" else target.workspace,
        "before": {"value": chance.randint(1, 99)},
        "after": {"value": chance.randint(100, 999)},
        "address": f"192.0.2.{chance.randint(1, 254)}",
        "request_id": f"c0{at_ms:012x}{token(chance, 18)}",
    }
