"""`tramontane pools`. What the commands do lies in cli/pool_work.py, loaded when one is called."""

import importlib
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="The workers of each tier, what waits for them, and dead letters.")

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Tier = Annotated[str, typer.Argument(help="Its name.")]
Worker = Annotated[str, typer.Option(help="Only this one, as `show` names it; default: all of the tier.")]
Letter = Annotated[str, typer.Argument(metavar="LETTER", help="As `letters` names it.")]


def work() -> Any:
    return importlib.import_module("cli.pool_work")


@app.command()
def show(*, as_json: Json = False) -> None:
    """Workers, slots, leases, queues and waits."""
    work().show(as_json=as_json)


@app.command()
def drain(tier: Tier, *, worker: Worker = "", as_json: Json = False) -> None:
    """Take nothing more; what runs goes on, what waits keeps waiting."""
    work().drain(tier, worker, as_json=as_json)


@app.command()
def resume(tier: Tier, *, worker: Worker = "", as_json: Json = False) -> None:
    """Take work again."""
    work().resume(tier, worker, as_json=as_json)


@app.command()
def letters(*, as_json: Json = False) -> None:
    """Requests that lost three workers, youngest first: failed, and not charged."""
    work().letters(as_json=as_json)


@app.command()
def requeue(letter: Letter, *, as_json: Json = False) -> None:
    """Run it once more, alone on its worker, for nobody and for nothing; lost again, it is a letter again."""
    work().requeue(letter, as_json=as_json)


@app.command()
def drop(letter: Letter, *, as_json: Json = False) -> None:
    """Forget it."""
    work().drop(letter, as_json=as_json)
