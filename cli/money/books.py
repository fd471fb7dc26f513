"""What `tramontane books` does."""

import asyncio
import sys
from dataclasses import asdict

from rich.table import Table

from billing.calendar import hour_start_ms
from billing.check import CHECKS, Findings, check_books
from billing.check_cell import check_cell
from billing.days import DAY_MS, day_start_ms, next_day_ms, rebuild_day
from billing.rollups import HOUR_MS, next_hour_ms, rebuild_hour
from cli.accounts.acting import print_json
from cli.database import opened
from cli.installation import Installation, find_installation, redis_of
from cli.terminal import tables
from cli.usage import parse_time_ms
from core.db import Database


def check(since: str | None, *, as_json: bool) -> int:
    """The exit code: 1 if anything disagrees."""
    since_ms = 0 if since is None else parse_time_ms(since, "--since")
    installation = find_installation()
    findings = Findings()
    with opened(installation.settings) as database:
        check_books(database, since_ms, findings)
        if installation.redis_url is None:
            findings.skipped.append("holds: nothing runs, so Redis was not asked")
        else:
            asyncio.run(_check_cell(installation, database, findings))
    if as_json:
        print_json(
            {
                "ok": findings.ok,
                "counts": findings.counts,
                "findings": [asdict(finding) for finding in findings.kept],
                "looked_at": findings.looked_at,
                "skipped": findings.skipped,
            }
        )
    else:
        _print(findings)
    return 0 if findings.ok else 1


def rebuild(since: str | None, *, as_json: bool) -> None:
    """Hour by hour, then day by day, each in a transaction of its own."""
    from_ms = hour_start_ms(0 if since is None else parse_time_ms(since, "--since"))
    hours = wrong = 0
    with opened(find_installation().settings) as database:
        while True:
            with database.unit_of_work() as session:
                hour_ms = next_hour_ms(session, from_ms)
                if hour_ms is None:
                    break
                wrong += rebuild_hour(session, hour_ms)
            hours += 1
            from_ms = hour_ms + HOUR_MS
        wrong += _rebuild_days(database, hour_start_ms(0 if since is None else parse_time_ms(since, "--since")))
    if as_json:
        print_json({"hours": hours, "rows_mended": wrong})
    else:
        sys.stdout.write(f"{hours} hours looked at, {wrong} rows mended.\n")


def _rebuild_days(database: Database, from_ms: int) -> int:
    wrong, day_ms = 0, day_start_ms(from_ms)
    while True:
        with database.unit_of_work() as session:
            found_ms = next_day_ms(session, day_ms)
            if found_ms is None:
                return wrong
            wrong += rebuild_day(session, found_ms)
        day_ms = found_ms + DAY_MS


async def _check_cell(installation: Installation, database: Database, findings: Findings) -> None:
    async with redis_of(installation) as client:
        await check_cell(database, client, installation.settings.cell, findings)


def _print(findings: Findings) -> None:
    table = Table("check", "findings", box=None)
    for name in CHECKS:
        table.add_row(name, f"{findings.counts[name]:,}" if findings.counts[name] else "-")
    tables().print(table)
    looked_at = ", ".join(f"{count:,} {what}" for what, count in findings.looked_at.items())
    sys.stdout.write(f"Looked at {looked_at or 'nothing'}.\n")
    for sentence in findings.skipped:
        sys.stdout.write(f"Skipped {sentence}.\n")
    for finding in findings.kept:
        sys.stdout.write(f"{finding.check}: {finding.sentence}\n")
