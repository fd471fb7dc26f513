"""`tramontane orgs`. What the commands do lies in cli/accounts, loaded when one is called."""

import importlib
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Organisations: who pays.")

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Org = Annotated[str, typer.Argument(metavar="ORG", help="Name or id.")]


def work() -> Any:
    return importlib.import_module("cli.accounts.orgs")


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    *,
    plan: Annotated[str, typer.Option(help="Its limits, weight and first credit.")] = "development",
    time_zone: Annotated[str, typer.Option(help="IANA name; cuts its days and months.")] = "UTC",
    lenient: Annotated[bool, typer.Option("--lenient", help="Accept what OpenAI clients send.")] = False,
    as_json: Json = False,
) -> None:
    """Make an organisation with a default workspace."""
    work().create(name, plan=plan, time_zone=time_zone, lenient=lenient, as_json=as_json)


@app.command("list")
def list_all(*, as_json: Json = False) -> None:
    """All organisations."""
    work().show_all(as_json=as_json)


@app.command()
def show(org: Org, *, as_json: Json = False) -> None:
    """One of them."""
    work().show(org, as_json=as_json)


@app.command()
def rename(org: Org, name: Annotated[str, typer.Argument(metavar="NAME")], *, as_json: Json = False) -> None:
    """Its id stays."""
    work().rename(org, name, as_json=as_json)


@app.command("set-plan")
def set_plan(org: Org, plan: Annotated[str, typer.Argument(metavar="PLAN")], *, as_json: Json = False) -> None:
    """Limits, weight and prices follow at once; credit stays."""
    work().set_plan(org, plan, as_json=as_json)


@app.command("set-lenient")
def set_lenient(org: Org, *, lenient: Annotated[bool, typer.Option("--on/--off")], as_json: Json = False) -> None:
    """Whether its workspaces accept what OpenAI clients send, unless they say otherwise."""
    work().set_lenient(org, lenient=lenient, as_json=as_json)


@app.command()
def suspend(org: Org, *, as_json: Json = False) -> None:
    """None of its keys works until it is resumed; open streams end."""
    work().suspend(org, as_json=as_json)


@app.command()
def resume(org: Org, *, as_json: Json = False) -> None:
    """End a suspension."""
    work().resume(org, as_json=as_json)
