"""`tramontane limits`. What the commands do lies in cli/accounts, loaded when one is called."""

import importlib
from enum import StrEnum
from typing import Annotated, Any

import typer

from core.queue.rules import RuleKind

app = typer.Typer(no_args_is_help=True, help="Limits of plans, organisations, workspaces and keys.")

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A plan's name, a key's id, else name or id.")]


class Of(StrEnum):
    PLAN = "plan"
    ORGANISATION = "organisation"
    CUSTOMER = "customer"
    WORKSPACE = "workspace"
    KEY = "key"


Kind = Annotated[Of, typer.Argument(help="customer: what an organisation sets for itself, only ever tighter.")]


def work() -> Any:
    return importlib.import_module("cli.accounts.limits")


@app.command("set")
def set_one(
    kind: Kind,
    name: Name,
    limit: Annotated[RuleKind, typer.Argument(help="What is counted.")],
    value: Annotated[str, typer.Argument(help="A whole number, 0 lets nothing through; spending in currency units.")],
    *,
    tier: Annotated[str, typer.Option(help="Only for this tier; default: all together.")] = "",
    soft: Annotated[bool, typer.Option("--soft", help="Refuse nothing, only tell.")] = False,
    as_json: Json = False,
) -> None:
    """Make a limit or change its value. An organisation's limit takes the place of its plan's."""
    work().set_one(kind.value, name, limit.value, value, tier=tier, soft=soft, as_json=as_json)


@app.command()
def remove(limit_id: Annotated[str, typer.Argument(metavar="ID")], *, as_json: Json = False) -> None:
    """Take a limit away."""
    work().remove(limit_id, as_json=as_json)


@app.command("list")
def list_all(kind: Kind, name: Name, *, as_json: Json = False) -> None:
    """Those set for exactly this one; `GET /v1/limits` tells what applies to a key in the end."""
    work().show(kind.value, name, as_json=as_json)
