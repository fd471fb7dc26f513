"""`tramontane refusals`. What the command does lies in cli/money, loaded when it is called."""

import importlib
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, help="Refused requests of the last day: who, by which rule, with which numbers."
)


@app.command("list")
def list_some(
    *,
    org: Annotated[str | None, typer.Option(help="Name or id; default: of all, and of callers without a key.")] = None,
    since: Annotated[str | None, typer.Option(help="ISO 8601 or seconds since 1970; default: a day ago.")] = None,
    count: Annotated[int, typer.Option(min=1, max=1_000, help="Of each organisation, the youngest.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """The youngest refusals, youngest first."""
    importlib.import_module("cli.money.refusals").show(org, since, count, as_json=as_json)
