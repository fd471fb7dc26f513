"""`tramontane prices`. What the commands do lies in cli/money, loaded when one is called."""

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Prices: immutable versions, each with a start.")

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def work() -> Any:
    return importlib.import_module("cli.money.prices")


@app.command("list")
def list_all(*, as_json: Json = False) -> None:
    """All versions, per million tokens."""
    work().show(as_json=as_json)


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A price list, or a tramontane.toml.")],
    *,
    name: Annotated[str | None, typer.Option(help="Of the new versions; default: the list's, else today.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what differs.")] = False,
    as_json: Json = False,
) -> None:
    """Show what differs from the file, and write a new version for each of it. Nothing is ever changed."""
    work().apply(file, name=name, dry_run=dry_run, as_json=as_json)
