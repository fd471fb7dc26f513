"""The command `tramontane`. Small on purpose: what a command does lies in the module that it loads when called,
so that `--help` does not wait for SQL, Redis and Alembic.
"""

import importlib
import importlib.metadata
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from cli import books, credit, keys, limits, orgs, plans, pool_commands, prices, refusals, users, workspaces
from cli.run import ProcessName, run
from core.errors import SetupError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
GROUPS = {
    "orgs": orgs,
    "workspaces": workspaces,
    "users": users,
    "keys": keys,
    "limits": limits,
    "credit": credit,
    "plans": plans,
    "prices": prices,
    "books": books,
    "refusals": refusals,
    "pools": pool_commands,
}
for name, group in GROUPS.items():
    app.add_typer(group.app, name=name)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


class EngineChoice(StrEnum):
    ECHO = "echo"
    TRANSFORMERS = "transformers"
    VLLM = "vllm"


def command(module: str) -> Any:
    """The module behind a command, imported only when it is asked for."""
    return importlib.import_module(f"cli.{module}")


@app.callback(invoke_without_command=True)
def top(
    *, version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and exit.")] = False
) -> None:
    """Tramontane: a self-hosted, metered model API platform that speaks Mistral's API."""
    if version:
        sys.stdout.write(f"tramontane {importlib.metadata.version('tramontane-platform')}\n")
        raise typer.Exit


@app.command()
def up(
    *,
    detach: Annotated[bool, typer.Option("--detach", help="Return when it is ready; stop it with `down`.")] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one; `status` shows it.")] = 8_000,
    tiers: Annotated[str | None, typer.Option(help="Serve only these, comma-separated.")] = None,
    engine: Annotated[EngineChoice | None, typer.Option(help="Engine of every chat tier.")] = None,
    gateways: Annotated[int, typer.Option(min=1, max=64, help="Gateway processes on the one port.")] = 1,
    progress_fd: Annotated[int | None, typer.Option(hidden=True, help="Where the waiting parent listens.")] = None,
) -> None:
    """Migrate and start everything; Ctrl-C stops it."""
    chosen = None if engine is None else engine.value
    starter = command("start")
    options = starter.StartOptions(
        host=host, port=port, gateways=gateways, tiers=tiers, engine=chosen, detached=detach or progress_fd is not None
    )
    if detach:
        code = starter.start_detached(options)
    elif progress_fd is not None:
        code = starter.start_behind(options, progress_fd)
    else:
        code = starter.start_here(options)
    raise typer.Exit(code)


@app.command()
def down() -> None:
    """Stop what `up` started, in order, and wait until it is gone."""
    command("down").down()


@app.command(name="run")
def run_process(
    name: Annotated[ProcessName, typer.Argument(help="Settings come from the environment.")],
    tier: Annotated[list[str] | None, typer.Option(help="Of a worker: serve this one; may be repeated.")] = None,
) -> None:
    """Run one process of the platform; SIGTERM drains it."""
    if name is ProcessName.WORKER:
        raise typer.Exit(command("run_worker").run_worker(tier or ()))
    if tier:
        raise typer.BadParameter("only a worker serves chosen tiers")
    raise typer.Exit(run(name))


@app.command()
def migrate() -> None:
    """Bring the database to this release and make what a fresh installation starts with."""
    command("migrate").run()


@app.command()
def status(*, as_json: Json = False) -> None:
    """What runs, what waits, what is in work."""
    raise typer.Exit(command("status").status(as_json=as_json))


@app.command()
def usage(
    *,
    as_json: Json = False,
    since: Annotated[
        str | None, typer.Option(help="ISO 8601 (2026-01-31T12:00:00Z) or seconds since 1970; by admission.")
    ] = None,
) -> None:
    """Tokens by tier and key, once everything settled before this call is counted."""
    command("usage").usage(as_json=as_json, since=since)


def main() -> int:
    """Exit code 0, 1 with one sentence on stderr, or 2 for a wrong command line."""
    try:
        app()
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
