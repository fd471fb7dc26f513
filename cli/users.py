"""`tramontane users`. What the commands do lies in cli/accounts, loaded when one is called."""

import importlib
from enum import StrEnum
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Users, their roles, service accounts.")


class RoleChoice(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    BILLING = "billing"
    DEVELOPER = "developer"
    VIEWER = "viewer"


Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
User = Annotated[str, typer.Argument(metavar="USER", help="E-mail address or id.")]
Email = Annotated[str, typer.Argument(metavar="EMAIL")]
Org = Annotated[str, typer.Option("--org", help="Name or id of the organisation.")]
Workspace = Annotated[str | None, typer.Option("--workspace", help="Name or id: only in this workspace of it.")]
KeepKeys = Annotated[bool, typer.Option("--keep-keys", help="The keys that he owns go on; else they are revoked.")]


def work() -> Any:
    return importlib.import_module("cli.accounts.users")


@app.command()
def create(
    email: Email,
    *,
    name: Annotated[str | None, typer.Option(help="Default: what stands before the @.")] = None,
    operator: Annotated[bool, typer.Option("--operator", help="May do everything, everywhere.")] = False,
    org: Annotated[str | None, typer.Option("--org", help="Name or id: make him a member at once.")] = None,
    role: Annotated[RoleChoice, typer.Option(help="There.")] = RoleChoice.DEVELOPER,
    as_json: Json = False,
) -> None:
    """Make a user, and a link to choose a password."""
    work().create(email, name=name, operator=operator, organisation=org, role=role.value, as_json=as_json)


@app.command("list")
def list_all(
    *,
    org: Annotated[str | None, typer.Option("--org", help="Name or id: its members, with their roles.")] = None,
    as_json: Json = False,
) -> None:
    """All users, or the members of an organisation."""
    work().show_all(org, as_json=as_json)


@app.command()
def show(user: User, *, as_json: Json = False) -> None:
    """One of them, with all roles."""
    work().show(user, as_json=as_json)


@app.command()
def disable(user: User, *, keep_keys: KeepKeys = False, as_json: Json = False) -> None:
    """Nobody logs in as him any more; his sessions end."""
    work().disable(user, keep_keys=keep_keys, as_json=as_json)


@app.command()
def enable(user: User, *, as_json: Json = False) -> None:
    """With the roles and password that he had; revoked keys stay revoked."""
    work().enable(user, as_json=as_json)


@app.command("set-role")
def set_role(
    user: User,
    role: Annotated[RoleChoice, typer.Argument(metavar="ROLE", help="owner, admin, billing, developer or viewer.")],
    *,
    org: Org = "default",
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """In an organisation, or in one workspace of it."""
    work().set_role(user, role.value, org, workspace, as_json=as_json)


@app.command()
def remove(
    user: User, *, org: Org = "default", workspace: Workspace = None, keep_keys: KeepKeys = False, as_json: Json = False
) -> None:
    """From an organisation, or from one workspace of it."""
    work().remove(user, org, workspace, keep_keys=keep_keys, as_json=as_json)


@app.command()
def invite(
    email: Email,
    *,
    org: Org = "default",
    role: Annotated[RoleChoice, typer.Option(help="There.")] = RoleChoice.DEVELOPER,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """By mail if TRAMONTANE_SMTP_URL is set, else with a link to hand over."""
    work().invite(email, org, role.value, workspace, as_json=as_json)


@app.command("reset-password")
def reset_password(user: User, *, as_json: Json = False) -> None:
    """A link to choose another password: by mail, else to hand over."""
    work().reset_password(user, as_json=as_json)


@app.command("service-account")
def service_account(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    *,
    org: Org = "default",
    role: Annotated[RoleChoice, typer.Option(help="There; not owner.")] = RoleChoice.DEVELOPER,
    as_json: Json = False,
) -> None:
    """An owner of keys that is no person and cannot log in."""
    work().service_account(name, org, role.value, as_json=as_json)
