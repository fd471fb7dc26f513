"""`tramontane workspaces`. What the commands do lies in cli/accounts, loaded when one is called."""

import importlib
from enum import StrEnum
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Workspaces of an organisation.")

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Workspace = Annotated[str, typer.Argument(metavar="WORKSPACE", help="Name or id.")]
Org = Annotated[str | None, typer.Option("--org", help="Name or id; needed where several have such a workspace.")]


class Leniency(StrEnum):
    ON = "on"
    OFF = "off"
    INHERIT = "inherit"


def work() -> Any:
    return importlib.import_module("cli.accounts.workspaces")


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    *,
    org: Annotated[str, typer.Option("--org", help="Name or id.")] = "default",
    as_json: Json = False,
) -> None:
    """Make a workspace."""
    work().create(org, name, as_json=as_json)


@app.command("list")
def list_all(*, org: Org = None, as_json: Json = False) -> None:
    """All workspaces, archived ones too."""
    work().show_all(org, as_json=as_json)


@app.command()
def rename(
    workspace: Workspace,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    *,
    org: Org = None,
    as_json: Json = False,
) -> None:
    """Its id stays."""
    work().rename(workspace, name, org, as_json=as_json)


@app.command()
def archive(workspace: Workspace, *, org: Org = None, as_json: Json = False) -> None:
    """For good: none of its keys works any more. The default workspace cannot be archived."""
    work().archive(workspace, org, as_json=as_json)


@app.command("set-lenient")
def set_lenient(
    workspace: Workspace,
    how: Annotated[Leniency, typer.Argument(help="inherit: as its organisation.")],
    *,
    org: Org = None,
    as_json: Json = False,
) -> None:
    """Whether it accepts what OpenAI clients send."""
    lenient = None if how is Leniency.INHERIT else how is Leniency.ON
    work().set_lenient(workspace, org, lenient=lenient, as_json=as_json)
