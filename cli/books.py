"""`tramontane books`. What the commands do lies in cli/money, loaded when one is called."""

import importlib
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="The books: check them, and make roll-ups anew.")

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Since = Annotated[
    str | None, typer.Option(help="ISO 8601 or seconds since 1970: details of what came later; default: of all.")
]


def work() -> Any:
    return importlib.import_module("cli.money.books")


@app.command()
def check(*, since: Since = None, as_json: Json = False) -> None:
    """Compare journal, accounts, seals, usage, prices, roll-ups and Redis; exit code 1 if anything disagrees."""
    raise typer.Exit(work().check(since, as_json=as_json))


@app.command()
def rebuild(*, since: Since = None, as_json: Json = False) -> None:
    """Make the roll-ups say what the usage records say."""
    work().rebuild(since, as_json=as_json)
