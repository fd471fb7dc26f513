"""`tramontane keys`: API keys of this installation, whether or not it runs."""

import asyncio
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime

from rich.table import Table

from cli.database import opened
from cli.installation import Installation, find_installation, keeper_of
from cli.terminal import tables
from core.clock import SystemClock
from core.ids import SystemIds
from gateway.accounts.service import KeyRow, Revoked, create_key, list_keys, revoke_key
from gateway.accounts.settings import pepper_of


def create(workspace: str, name: str, *, as_json: bool) -> None:
    """The key goes to stdout, once; without --json it stands there alone, so that a script can take it."""
    installation = find_installation()
    clock = SystemClock()
    with opened(installation.settings) as database, database.unit_of_work() as session:
        pepper = pepper_of(installation.settings)
        made = create_key(session, workspace, name, pepper=pepper, clock=clock, ids=SystemIds(clock))
    key = made.key.get_secret_value()
    if as_json:
        _print_json({**asdict(made), "key": key})
    else:
        sys.stderr.write(f"Key {made.id} for workspace {made.workspace}, shown only this once:\n")
        sys.stdout.write(key + "\n")


def show(workspace: str | None, *, as_json: bool) -> None:
    with opened(find_installation().settings) as database, database.reading() as session:
        rows = list_keys(session, workspace)
    if as_json:
        _print_json({"keys": [asdict(row) for row in rows]})
    else:
        tables().print(_table(rows))


def revoke(key_id: str, *, as_json: bool) -> None:
    installation = find_installation()
    with opened(installation.settings) as database, database.unit_of_work() as session:
        revoked = revoke_key(session, key_id, clock=SystemClock())
    if installation.redis_url is not None:  # else nothing runs, and the next start publishes it
        asyncio.run(_publish(installation, revoked))
    if as_json:
        _print_json({"id": revoked.key_id, "revoked_ms": revoked.revoked_ms})
    else:
        sys.stdout.write(f"Key {revoked.key_id} is revoked.\n")


async def _publish(installation: Installation, revoked: Revoked) -> None:
    async with keeper_of(installation) as keeper:
        await keeper.set_generation(revoked.organisation, revoked.generation)


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _table(rows: list[KeyRow]) -> Table:
    table = Table("id", "name", "ends in", "workspace", "created", "last used", "revoked", box=None)
    for row in rows:
        times = (_time(row.created_ms), _time(row.last_used_ms), _time(row.revoked_ms))
        table.add_row(row.id, row.name, row.hint, row.workspace, *times)
    return table


def _time(at_ms: int | None) -> str:
    return "-" if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
