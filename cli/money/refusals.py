"""What `tramontane refusals` does."""

import asyncio
from dataclasses import asdict

from rich.table import Table
from sqlalchemy import select

from cli.accounts.acting import moment, print_json
from cli.database import opened
from cli.installation import Installation, find_installation, redis_of
from cli.terminal import tables
from cli.usage import parse_time_ms
from core.clock import SystemClock
from core.meter.refusals import RedisRefusalLog, RefusalEvent
from gateway.accounts.models import Organisation
from gateway.accounts.organisations import find_organisation

WITHOUT_KEY = ""
COLUMNS = (
    "at",
    "organisation",
    "key",
    "route",
    "tier",
    "status",
    "code",
    "rule",
    "scope",
    "limit",
    "remaining",
    "more",
)


def show(org: str | None, since: str | None, count: int, *, as_json: bool) -> None:
    since_ms = 0 if since is None else parse_time_ms(since, "--since")
    installation = find_installation()
    with opened(installation.settings) as database, database.reading() as session:
        if org is None:
            organisations = [*session.scalars(select(Organisation.id)), WITHOUT_KEY]
        else:
            organisations = [find_organisation(session, org).id]
    found = asyncio.run(_read(installation, organisations, since_ms, count))
    if as_json:
        print_json({"refusals": [asdict(event) for event in found]})
        return
    table = Table(*COLUMNS, box=None)
    for event in found:
        table.add_row(*_texts(event))
    tables().print(table)


async def _read(installation: Installation, organisations: list[str], since_ms: int, count: int) -> list[RefusalEvent]:
    async with redis_of(installation) as client:
        log = RedisRefusalLog(client, installation.settings.cell, SystemClock())
        found = [event for each in organisations for event in await log.read(each, since_ms, count)]
    return sorted(found, key=lambda event: event.at_ms, reverse=True)


def _texts(event: RefusalEvent) -> tuple[str, ...]:
    numbers = (str(event.limit), str(event.remaining)) if event.rule else ("", "")
    return (
        moment(event.at_ms),
        event.organisation or "-",
        event.key_id or "-",
        event.route,
        event.tier,
        str(event.status),
        event.code,
        event.rule,
        event.scope,
        *numbers,
        str(event.left_out or ""),
    )
