"""`tramontane credit`. What the commands do lies in cli/money, loaded when one is called."""

import importlib
from enum import StrEnum
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Credit of organisations: what they have, and where it comes from.")

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Org = Annotated[str, typer.Argument(metavar="ORG", help="Name or id.")]
Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help='In currency units, such as "12.50".')]
Key = Annotated[str | None, typer.Option(help="The same key again does nothing more; default: a new one.")]
Note = Annotated[str, typer.Option(help="Kept with it in the journal.")]


class Source(StrEnum):
    CASH = "cash"
    REVENUE = "revenue"
    PROMO = "promo"
    LOSS = "loss"


def work() -> Any:
    return importlib.import_module("cli.money.credit")


@app.command()
def show(org: Org, *, as_json: Json = False) -> None:
    """Balance, what of it is held for requests, limit, and the grants in the order in which they are used."""
    work().show(org, as_json=as_json)


@app.command("top-up")
def top_up(org: Org, amount: Amount, *, key: Key = None, note: Note = "", as_json: Json = False) -> None:
    """Add credit that was paid for."""
    work().top_up(org, amount, key=key, note=note, as_json=as_json)


@app.command()
def grant(
    org: Org,
    amount: Amount,
    *,
    expires: Annotated[str | None, typer.Option(help="ISO 8601, or seconds since 1970; default: never.")] = None,
    priority: Annotated[int, typer.Option(min=0, max=1_000, help="Low is used first; paid credit has 100.")] = 50,
    key: Key = None,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Give credit away."""
    work().grant(org, amount, expires=expires, priority=priority, key=key, note=note, as_json=as_json)


@app.command(context_settings={"ignore_unknown_options": True})  # an amount may begin with a minus
def correct(
    org: Org,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Above 0 gives back, below 0 takes away.")],
    *,
    against: Annotated[Source, typer.Option(help="Where it comes from or goes to.")],
    key: Key = None,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Put right what was booked wrongly, by a new entry. What is held for requests cannot be taken away."""
    work().correct(org, amount, against=against.value, key=key, note=note, as_json=as_json)


@app.command("set-limit")
def set_limit(org: Org, amount: Amount, *, as_json: Json = False) -> None:
    """How far the balance may go below 0: above 0 the organisation pays afterwards."""
    work().set_limit(org, amount, as_json=as_json)
