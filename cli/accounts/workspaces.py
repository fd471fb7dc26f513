"""What `tramontane workspaces` does."""

from typing import Any

from rich.table import Table
from sqlalchemy.orm import Session

from cli.accounts.acting import hands, moment, print_json, tell
from cli.terminal import tables
from gateway.accounts import workspaces
from gateway.accounts.generations import Change
from gateway.accounts.models import Organisation, Workspace
from gateway.accounts.organisations import find_organisation


def create(organisation: str, name: str, *, as_json: bool) -> None:
    did = hands()
    with did.changing() as session:
        home = find_organisation(session, organisation).id
        made = workspaces.create_workspace(session, home, name, actor=did.actor, clock=did.clock, ids=did.ids)
    tell(did, Change(made.id, ()), f"Workspace {name} is {made.id}.", as_json=as_json)


def show_all(organisation: str | None, *, as_json: bool) -> None:
    with hands().reading() as session:
        within = _within(session, organisation)
        facts = [_facts(session, found) for found in workspaces.list_workspaces(session, within=within)]
    if as_json:
        print_json({"workspaces": facts})
        return
    table = Table("id", "name", "organisation", "lenient", "created", "archived", box=None)
    for fact in facts:
        lenient = {None: "as its organisation", True: "yes", False: "no"}[fact["lenient"]]
        times = (moment(fact["created_ms"]), moment(fact["archived_ms"]))
        table.add_row(fact["id"], fact["name"], fact["organisation"], lenient, *times)
    tables().print(table)


def rename(name: str, new_name: str, organisation: str | None, *, as_json: bool) -> None:
    did = hands()
    with did.changing() as session:
        within = _within(session, organisation)
        change = workspaces.rename_workspace(session, name, new_name, within=within, actor=did.actor, clock=did.clock)
    tell(did, change, f"Workspace {change.id} is now called {new_name}.", as_json=as_json)


def archive(name: str, organisation: str | None, *, as_json: bool) -> None:
    did = hands()
    with did.changing() as session:
        within = _within(session, organisation)
        change = workspaces.archive_workspace(session, name, within=within, actor=did.actor, clock=did.clock)
    tell(did, change, f"Workspace {name} is archived.", as_json=as_json)


def set_lenient(name: str, organisation: str | None, *, lenient: bool | None, as_json: bool) -> None:
    did = hands()
    with did.changing() as session:
        within = _within(session, organisation)
        change = workspaces.set_workspace_lenient(
            session, name, lenient, within=within, actor=did.actor, clock=did.clock
        )
    tell(did, change, f"Workspace {name} is set.", as_json=as_json)


def _within(session: Session, organisation: str | None) -> str | None:
    return None if organisation is None else find_organisation(session, organisation).id


def _facts(session: Session, found: Workspace) -> dict[str, Any]:
    return {
        "id": found.id,
        "name": found.name,
        "organisation": session.get_one(Organisation, found.organisation_id).name,
        "is_default": found.is_default,
        "lenient": found.lenient,
        "created_ms": found.created_ms,
        "archived_ms": found.archived_ms,
    }
