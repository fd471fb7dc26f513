"""`tramontane plans`. What the commands do lies in cli/accounts, loaded when one is called."""

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Plans: limits, weight and first credit of organisations.")

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def work() -> Any:
    return importlib.import_module("cli.accounts.plans")


@app.command("list")
def list_all(*, as_json: Json = False) -> None:
    """All plans with their limits."""
    work().show(as_json=as_json)


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A tramontane.toml, or only its [plans.NAME] tables.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what differs.")] = False,
    as_json: Json = False,
) -> None:
    """Show what differs from the file, and make it so, at once. Plans that the file does not name stay."""
    work().apply(file, dry_run=dry_run, as_json=as_json)
