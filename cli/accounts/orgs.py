"""What `tramontane orgs` does."""

from typing import Any

from rich.table import Table
from sqlalchemy.orm import Session

from billing.customers import time_zone_of
from cli.accounts.acting import hands, moment, print_json, tell
from cli.installation import catalog_of
from cli.terminal import tables
from gateway.accounts import organisations
from gateway.accounts.models import Organisation
from gateway.accounts.opening import open_account


def create(name: str, *, plan: str, time_zone: str, lenient: bool, as_json: bool) -> None:
    """With its customer and its plan's credit, in the same transaction."""
    did = hands()
    currency = catalog_of(did.installation).currency
    with did.changing() as session:
        change = organisations.create_organisation(
            session, name, actor=did.actor, clock=did.clock, ids=did.ids, plan=plan, lenient=lenient
        )
        open_account(session, change.id, currency, did.clock, time_zone=time_zone)
    tell(did, change, f"Organisation {name} is {change.id}.", as_json=as_json)


def show_all(*, as_json: bool) -> None:
    with hands().reading() as session:
        facts = [_facts(session, found) for found in organisations.list_organisations(session)]
    if as_json:
        print_json({"organisations": facts})
        return
    table = Table("id", "name", "plan", "status", "lenient", "time zone", "created", box=None)
    for fact in facts:
        lenient = "yes" if fact["lenient"] else "no"
        texts = (fact["id"], fact["name"], fact["plan"], fact["status"], lenient, fact["time_zone"])
        table.add_row(*texts, moment(fact["created_ms"]))
    tables().print(table)


def show(name: str, *, as_json: bool) -> None:
    with hands().reading() as session:
        facts = _facts(session, organisations.find_organisation(session, name))
    if as_json:
        print_json(facts)
        return
    table = Table("", "", box=None, show_header=False)
    for field, value in facts.items():
        table.add_row(field, moment(value) if field == "created_ms" else str(value))
    tables().print(table)


def rename(name: str, new_name: str, *, as_json: bool) -> None:
    did = hands()
    with did.changing() as session:
        found = organisations.find_organisation(session, name).id
        change = organisations.rename_organisation(session, found, new_name, actor=did.actor, clock=did.clock)
    tell(did, change, f"Organisation {change.id} is now called {new_name}.", as_json=as_json)


def set_plan(name: str, plan: str, *, as_json: bool) -> None:
    did = hands()
    with did.changing() as session:
        found = organisations.find_organisation(session, name).id
        change = organisations.change_plan(session, found, plan, actor=did.actor, clock=did.clock)
    tell(did, change, f"Organisation {name} is on the plan {plan}.", as_json=as_json)


def set_lenient(name: str, *, lenient: bool, as_json: bool) -> None:
    did = hands()
    with did.changing() as session:
        found = organisations.find_organisation(session, name).id
        change = organisations.set_organisation_lenient(session, found, lenient, actor=did.actor, clock=did.clock)
    tell(did, change, f"Organisation {name} is {'lenient' if lenient else 'strict'}.", as_json=as_json)


def suspend(name: str, *, as_json: bool) -> None:
    did = hands()
    with did.changing() as session:
        found = organisations.find_organisation(session, name).id
        change = organisations.suspend_organisation(session, found, actor=did.actor, clock=did.clock)
    tell(did, change, f"Organisation {name} is suspended.", as_json=as_json)


def resume(name: str, *, as_json: bool) -> None:
    did = hands()
    with did.changing() as session:
        found = organisations.find_organisation(session, name).id
        change = organisations.resume_organisation(session, found, actor=did.actor, clock=did.clock)
    tell(did, change, f"Organisation {name} is active.", as_json=as_json)


def _facts(session: Session, found: Organisation) -> dict[str, Any]:
    return {
        "id": found.id,
        "name": found.name,
        "plan": found.plan,
        "status": found.status,
        "lenient": found.lenient,
        "time_zone": time_zone_of(session, found.id),
        "created_ms": found.created_ms,
    }
