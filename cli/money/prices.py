"""What `tramontane prices` does."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from billing.price_lists import PriceChange, PriceEntry, differs, read_price_file
from billing.prices import PriceScope, PriceVersion, price_versions
from cli.accounts.acting import hands, moment, print_json
from cli.installation import catalog_of
from cli.terminal import tables
from gateway.accounts.pricing import change_prices, entry_facts


def show(*, as_json: bool) -> None:
    with hands().reading() as session:
        facts = [_facts(version) for version in price_versions(session)]
    if as_json:
        print_json({"prices": facts})
        return
    table = Table("version", "tier", "for", "input", "cached", "output", "batch", "starts", box=None)
    for fact in facts:
        texts = (fact["version"], fact["tier"], _whose(fact), fact["input"], fact["cached"], fact["output"])
        table.add_row(*texts, f"{fact['batch_percent']} %", moment(fact["start_ms"]) if fact["start_ms"] else "-")
    tables().print(table)


def apply(file: Path, *, name: str | None, dry_run: bool, as_json: bool) -> None:
    did = hands()
    now_ms = did.clock.now_ms()
    found = read_price_file(file, now_ms)
    tiers = [tier.name for tier in catalog_of(did.installation).tiers]
    if dry_run:
        with did.reading() as session:
            changes = differs(session, found.entries, max(now_ms, found.start_ms or 0))
        _tell(changes, "differ from the file", as_json=as_json)
        return
    named = found if name is None else replace(found, name=name)
    with did.changing() as session:
        changes, raised = change_prices(session, named, tiers=tiers, actor=did.actor, clock=did.clock)
    did.publish(raised)
    _tell(changes, "have a new version", as_json=as_json)


def _tell(changes: tuple[PriceChange, ...], what: str, *, as_json: bool) -> None:
    if as_json:
        facts = [
            {"before": None if change.before is None else entry_facts(change.before), **entry_facts(change.after)}
            for change in changes
        ]
        print_json({"changes": facts})
        return
    if not changes:
        sys.stdout.write("Nothing differs.\n")
        return
    sys.stdout.write(f"{len(changes)} prices {what}:\n")
    table = Table("tier", "for", "input", "cached", "output", "batch", box=None)
    for change in changes:
        before = None if change.before is None else entry_facts(change.before)
        after = entry_facts(change.after)
        cells = (_step(before, after, field) for field in ("input", "cached", "output", "batch_percent"))
        table.add_row(after["tier"], _whose(after), *cells)
    tables().print(table)


def _step(before: dict[str, Any] | None, after: dict[str, Any], field: str) -> str:
    if before is None or before[field] == after[field]:
        return str(after[field])
    return f"{before[field]} -> {after[field]}"


def _whose(fact: dict[str, Any]) -> str:
    if fact["plan"]:
        return f"plan {fact['plan']}"
    return f"organisation {fact['organisation']}" if fact["organisation"] else "all"


def _facts(version: PriceVersion) -> dict[str, Any]:
    scope = PriceScope(version.tier, version.plan, version.organisation)
    entry = PriceEntry(scope, version.input_nano, version.cached_nano, version.output_nano, version.batch_percent)
    times = {"start_ms": version.start_ms, "created_ms": version.created_ms}
    return {"version": version.version, **entry_facts(entry), **times, "note": version.note}
