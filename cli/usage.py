"""`tramontane usage`: tokens by tier and key, complete up to the moment of the call."""

import asyncio
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime

from rich.table import Table

from billing.money import show_amount
from billing.usage import UsageRow, usage_rows
from cli.catch_up import CONSUMER, caught_up
from cli.database import opened
from cli.installation import Installation, find_installation, redis_of
from cli.terminal import tables
from core.clock import SystemClock
from core.errors import SetupError
from core.meter.usage_redis import RedisUsageSource

CATCH_UP_S_MAX = 30.0


def usage(*, as_json: bool, since: str | None) -> None:
    since_ms = 0 if since is None else parse_time_ms(since)
    installation = find_installation()
    if installation.redis_url is not None:  # else nothing runs, and the collector took in everything at its end
        asyncio.run(_wait_for_collector(installation))
    with opened(installation.settings) as database, database.reading() as session:
        rows = usage_rows(session, since_ms)
    if as_json:
        sys.stdout.write(json.dumps({"rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    else:
        tables().print(_table(rows))


def parse_time_ms(text: str, option: str = "--since") -> int:
    """ISO 8601 (UTC if it names no zone) or seconds since 1970. Raises SetupError."""
    try:
        if text.replace(".", "", 1).isdigit():
            return round(float(text) * 1000)
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise SetupError(f"{option} {text} is neither ISO 8601 nor seconds since 1970.") from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


async def _wait_for_collector(installation: Installation) -> None:
    async with redis_of(installation) as client:
        source = RedisUsageSource(client, installation.settings.cell, CONSUMER)
        if not await caught_up(source, SystemClock(), CATCH_UP_S_MAX):
            waiting = await source.backlog()
            raise SetupError(f"The collector is behind by {waiting} requests after {CATCH_UP_S_MAX:.0f} s.")


def _table(rows: list[UsageRow]) -> Table:
    table = Table("tier", "key", "requests", "prompt", "completion", "cached", "cost", box=None)
    for row in rows:
        counts = (row.requests, row.prompt_tokens, row.completion_tokens, row.cached_tokens)
        table.add_row(row.tier, row.key_id, *(f"{count:,}" for count in counts), show_amount(row.cost_nano))
    return table
