"""What `tramontane users` does. Who runs it is an operator: the machine's own."""

import sys
from typing import Any

from rich.table import Table
from sqlalchemy.orm import Session

from cli.accounts.acting import Hands, hands, moment, print_json, tell
from cli.terminal import tables
from core.errors import SetupError
from gateway.accounts import members, users
from gateway.accounts.access import OPERATOR, access_of
from gateway.accounts.generations import Change
from gateway.accounts.invitations import invite as make_invitation
from gateway.accounts.invitations import password_link
from gateway.accounts.letters import deliver
from gateway.accounts.links import Link
from gateway.accounts.mail import Mailer, MailError, mailer_of
from gateway.accounts.models import Organisation, Workspace
from gateway.accounts.organisations import find_organisation
from gateway.accounts.people import User
from gateway.accounts.roles import checked_role

LISTEN_URL = "http://127.0.0.1:8000"  # where `up` listens unless it is told otherwise


def create(email: str, *, name: str | None, operator: bool, organisation: str | None, role: str, as_json: bool) -> None:
    did = hands()
    mailer = mailer_of(did.installation.settings)  # before anything is done: it may be set wrongly
    by: dict[str, Any] = {"actor": did.actor, "clock": did.clock}
    with did.changing() as session:
        made = users.create_user(
            session,
            email,
            name or email.partition("@")[0],
            actor=did.actor,
            clock=did.clock,
            ids=did.ids,
            is_operator=operator,
        )
        change = Change(made.id, ())
        if organisation is not None:
            home = find_organisation(session, organisation).id
            change = members.set_role(session, made.id, home, checked_role(role), access=OPERATOR, **by)
        link = password_link(session, made.id, access=OPERATOR, ids=did.ids, **by)
    did.publish(change.publish)
    _hand_over(did, mailer, link, made.id, f"User {made.email} is {made.id}.", as_json=as_json)


def show_all(organisation: str | None, *, as_json: bool) -> None:
    with hands().reading() as session:
        if organisation is None:
            facts = [_facts(user) for user in users.list_users(session, within=None)]
        else:
            home = find_organisation(session, organisation).id
            facts = [_member(session, row) for row in members.list_members(session, home, access=OPERATOR)]
    if as_json:
        print_json({"users": facts})
        return
    table = Table("id", "kind", "e-mail", "name", "role", "last login", "disabled", box=None)
    for fact in facts:
        role = fact.get("role") or ("operator" if fact.get("is_operator") else "")
        role = ", ".join([role, *(f"{name}: {each}" for name, each in fact.get("workspaces", {}).items())]).strip(", ")
        times = (moment(fact["last_login_ms"]), moment(fact["disabled_ms"]))
        table.add_row(fact["id"], fact["kind"], fact["email"] or "-", fact["name"], role or "-", *times)
    tables().print(table)


def show(name: str, *, as_json: bool) -> None:
    with hands().reading() as session:
        found = users.find_user(session, name, within=None)
        access = access_of(session, found.id)
        roles = {session.get_one(Organisation, home).name: role.value for home, role in access.roles.items()}
        there = [
            {
                "organisation": session.get_one(Organisation, each.organisation).name,
                "workspace": session.get_one(Workspace, workspace).name,
                "role": each.role.value,
            }
            for workspace, each in access.workspace_roles.items()
        ]
        facts = {**_facts(found), "roles": roles, "workspace_roles": there}
    if as_json:
        print_json(facts)
        return
    lines = {
        **facts,
        "roles": ", ".join(f"{home}: {role}" for home, role in roles.items()),
        "workspace_roles": ", ".join(f"{each['organisation']}/{each['workspace']}: {each['role']}" for each in there),
    }
    table = Table("", "", box=None, show_header=False)
    for field, value in lines.items():
        table.add_row(field, moment(value) if field.endswith("_ms") else str(value or "-"))
    tables().print(table)


def disable(name: str, *, keep_keys: bool, as_json: bool) -> None:
    did = hands()
    with did.changing() as session:
        found = users.find_user(session, name, within=None).id
        change = users.disable_user(session, found, actor=did.actor, clock=did.clock, revoke_keys=not keep_keys)
    tell(did, change, f"User {name} is disabled.", as_json=as_json)


def enable(name: str, *, as_json: bool) -> None:
    did = hands()
    with did.changing() as session:
        found = users.find_user(session, name, within=None).id
        users.enable_user(session, found, actor=did.actor, clock=did.clock)
    tell(did, Change(found, ()), f"User {name} is enabled.", as_json=as_json)


def set_role(name: str, role: str, organisation: str, workspace: str | None, *, as_json: bool) -> None:
    did = hands()
    by: dict[str, Any] = {"access": OPERATOR, "actor": did.actor, "clock": did.clock}
    with did.changing() as session:
        home, wanted = find_organisation(session, organisation).id, checked_role(role)
        found = users.find_user(session, name, within=None).id
        if workspace is None:
            change = members.set_role(session, found, home, wanted, **by)
        else:
            change = members.set_workspace_role(session, found, workspace, wanted, within=home, **by)
    where = organisation if workspace is None else f"{organisation}/{workspace}"
    tell(did, change, f"User {name} is {role} in {where}.", as_json=as_json)


def remove(name: str, organisation: str, workspace: str | None, *, keep_keys: bool, as_json: bool) -> None:
    did = hands()
    by: dict[str, Any] = {"access": OPERATOR, "actor": did.actor, "clock": did.clock, "revoke_keys": not keep_keys}
    with did.changing() as session:
        home = find_organisation(session, organisation).id
        found = users.find_user(session, name, within=home).id
        if workspace is None:
            gone = members.remove_member(session, found, home, **by)
        else:
            gone = members.remove_workspace_member(session, found, workspace, within=home, **by)
    did.publish(gone.publish)
    if as_json:
        print_json({"id": gone.id, "keys_revoked": list(gone.keys_revoked), "keys_kept": list(gone.keys_kept)})
        return
    sys.stdout.write(f"User {name} is removed; keys revoked: {len(gone.keys_revoked)}, kept: {len(gone.keys_kept)}.\n")


def invite(email: str, organisation: str, role: str, workspace: str | None, *, as_json: bool) -> None:
    did = hands()
    mailer = mailer_of(did.installation.settings)  # before anything is done: it may be set wrongly
    by: dict[str, Any] = {"access": OPERATOR, "actor": did.actor, "clock": did.clock, "ids": did.ids}
    with did.changing() as session:
        home = find_organisation(session, organisation).id
        link = make_invitation(session, email, home, checked_role(role), workspace=workspace, **by)
    _hand_over(did, mailer, link, link.id, f"{link.email} is invited.", as_json=as_json)


def reset_password(name: str, *, as_json: bool) -> None:
    did = hands()
    mailer = mailer_of(did.installation.settings)  # before anything is done: it may be set wrongly
    with did.changing() as session:
        link = password_link(session, name, access=OPERATOR, actor=did.actor, clock=did.clock, ids=did.ids)
    _hand_over(did, mailer, link, link.id, f"{link.email} may choose another password.", as_json=as_json)


def service_account(name: str, organisation: str, role: str, *, as_json: bool) -> None:
    did = hands()
    by: dict[str, Any] = {"access": OPERATOR, "actor": did.actor, "clock": did.clock, "ids": did.ids}
    with did.changing() as session:
        home = find_organisation(session, organisation).id
        change = members.create_service_account(session, home, name, checked_role(role), **by)
    tell(did, change, f"Service account {name} is {change.id}.", as_json=as_json)


def _hand_over(did: Hands, mailer: Mailer | None, link: Link, made: str, said: str, *, as_json: bool) -> None:
    """After the commit: the link is mailed, or shown."""
    settings = did.installation.settings
    state = did.installation.state
    try:
        url = deliver(link, mailer, settings.public_url or (state.base_url if state else LISTEN_URL))
    except MailError as error:
        raise SetupError(
            f"{said} But the link could not be mailed; `users reset-password` or `users invite` makes another. {error}"
        ) from error
    shown = None if url is None else url.get_secret_value()
    if as_json:
        print_json({"id": made, "email": link.email, "link": shown, "expires_ms": link.expires_ms})
    elif shown is None:
        sys.stdout.write(f"{said} The link went to {link.email} by mail.\n")
    else:
        sys.stdout.write(f"{said} This link works once, until {moment(link.expires_ms)}:\n{shown}\n")


def _facts(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "kind": user.kind,
        "email": user.email,
        "name": user.name,
        "is_operator": user.is_operator,
        "disabled_ms": user.disabled_ms,
        "created_ms": user.created_ms,
        "last_login_ms": user.last_login_ms,
    }


def _member(session: Session, row: members.MemberRow) -> dict[str, Any]:
    names = {session.get_one(Workspace, workspace).name: role.value for workspace, role in row.workspace_roles.items()}
    return {
        "id": row.user,
        "kind": row.kind,
        "email": row.email,
        "name": row.name,
        "role": None if row.role is None else row.role.value,
        "workspaces": names,
        "disabled_ms": row.disabled_ms,
        "last_login_ms": row.last_login_ms,
    }
