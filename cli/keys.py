"""`tramontane keys`. What the commands do lies in cli/accounts, loaded when one is called."""

import importlib
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="API keys: create, list, rotate, revoke.")

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="As `keys list` shows it.")]
Org = Annotated[str | None, typer.Option("--org", help="Name or id of the organisation.")]


def work() -> Any:
    return importlib.import_module("cli.accounts.keys")


@app.command()
def create(
    *,
    name: Annotated[str, typer.Option(help="What the key is for.")],
    workspace: Annotated[str | None, typer.Option(help="Name or id; default: the default workspace.")] = None,
    org: Org = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="inference, usage:read, admin:read, admin:write, operator; repeat it. Default: the first two."
        ),
    ] = None,
    tier: Annotated[list[str] | None, typer.Option(help="Only this tier; repeat it. Default: all.")] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="Only from this network, such as 10.0.0.0/8; repeat it. Default: any.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="ISO 8601 or seconds since 1970; default: never.")] = None,
    as_json: Json = False,
) -> None:
    """Make a key. It is shown once and kept nowhere."""
    work().create(
        name,
        workspace=workspace,
        organisation=org,
        scopes=scope or [],
        tiers=tier or [],
        networks=network or [],
        expires=expires,
        as_json=as_json,
    )


@app.command("list")
def list_all(
    *,
    workspace: Annotated[str | None, typer.Option(help="Name or id; default: all.")] = None,
    org: Org = None,
    as_json: Json = False,
) -> None:
    """All keys, revoked ones too; never the keys themselves."""
    work().show(workspace, org, as_json=as_json)


@app.command()
def rotate(
    key_id: KeyId,
    *,
    overlap_s: Annotated[int, typer.Option(help="How long the secret before stays valid.")] = 86_400,
    as_json: Json = False,
) -> None:
    """A new secret for the same key, shown once; the one before stays valid for a while."""
    work().rotate(key_id, overlap_s, as_json=as_json)


@app.command()
def revoke(key_id: KeyId, *, as_json: Json = False) -> None:
    """End a key for good, within a second on every gateway."""
    work().revoke(key_id, as_json=as_json)
