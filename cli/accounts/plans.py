"""What `tramontane plans` does."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from billing.money import show_amount
from cli.accounts.acting import hands, print_json
from cli.accounts.limits import SPENDING
from cli.installation import catalog_of
from cli.terminal import tables
from gateway.accounts.limits import LimitTerms
from gateway.accounts.plans import PlanChange, PlanTerms, apply_plans, list_plans, plans_that_differ, read_plan_file


def show(*, as_json: bool) -> None:
    with hands().reading() as session:
        plans = list_plans(session)
    if as_json:
        print_json({"plans": [_facts(plan) for plan in plans]})
        return
    table = Table("plan", "credit", "weight", "limits", box=None)
    for plan in plans:
        limits = "\n".join(f"{name} {value}" for name, value in _limits(plan).items())
        table.add_row(plan.name, show_amount(plan.credit_nano), str(plan.weight), limits)
    tables().print(table)


def apply(file: Path, *, dry_run: bool, as_json: bool) -> None:
    did = hands()
    wanted = read_plan_file(file)
    if dry_run:
        with did.reading() as session:
            changes = plans_that_differ(session, wanted)
        _tell(changes, "differ from the file", as_json=as_json)
        return
    tiers = [tier.name for tier in catalog_of(did.installation).tiers]
    with did.changing() as session:
        changes, raised = apply_plans(session, wanted, known_tiers=tiers, actor=did.actor, clock=did.clock, ids=did.ids)
    did.publish(raised)
    _tell(changes, "are as the file says", as_json=as_json)


def _tell(changes: Sequence[PlanChange], what: str, *, as_json: bool) -> None:
    if as_json:
        facts = [
            {"before": None if change.before is None else _facts(change.before), "after": _facts(change.after)}
            for change in changes
        ]
        print_json({"changes": facts})
        return
    if not changes:
        sys.stdout.write("Nothing differs.\n")
        return
    sys.stdout.write(f"{len(changes)} plans {what}:\n")
    table = Table("plan", "what", "before", "after", box=None)
    for change in changes:
        before = {} if change.before is None else _shown(change.before)
        after = _shown(change.after)
        for name in {**before, **after}:
            if before.get(name) != after.get(name):
                table.add_row(change.after.name, name, before.get(name, "-"), after.get(name, "-"))
    tables().print(table)


def _shown(plan: PlanTerms) -> dict[str, str]:
    return {"credit": show_amount(plan.credit_nano), "weight": str(plan.weight), **_limits(plan)}


def _limits(plan: PlanTerms) -> dict[str, str]:
    return {_name(limit): _value(limit) for limit in plan.limits}


def _name(limit: LimitTerms) -> str:
    tier = f" of {limit.tier}" if limit.tier else ""
    return f"{limit.kind.value}{tier}{'' if limit.hard else ' (soft)'}"


def _value(limit: LimitTerms) -> str:
    return show_amount(limit.value) if limit.kind in SPENDING else f"{limit.value:,}"


def _facts(plan: PlanTerms) -> dict[str, Any]:
    limits = [
        {"kind": limit.kind.value, "tier": limit.tier, "value": limit.value, "hard": limit.hard}
        for limit in plan.limits
    ]
    return {"name": plan.name, "credit": show_amount(plan.credit_nano), "weight": plan.weight, "limits": limits}
