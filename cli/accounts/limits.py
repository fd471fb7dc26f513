"""What `tramontane limits` does."""

from typing import Any

from rich.table import Table
from sqlalchemy.orm import Session

from billing.money import parse_amount, show_amount
from cli.accounts.acting import hands, print_json, tell
from cli.installation import catalog_of
from cli.terminal import tables
from core.errors import SetupError
from core.queue.rules import RuleKind
from gateway.accounts.limits import LimitTerms, Subject, SubjectKind, list_limits, remove_limit, set_limit
from gateway.accounts.models import Limit
from gateway.accounts.organisations import find_organisation
from gateway.accounts.workspaces import find_workspace

SPENDING = frozenset({RuleKind.SPEND_PER_DAY, RuleKind.SPEND_PER_MONTH})


def set_one(kind: str, name: str, rule: str, value: str, *, tier: str, soft: bool, as_json: bool) -> None:
    did = hands()
    known = [found.name for found in catalog_of(did.installation).tiers]
    with did.changing() as session:
        terms = LimitTerms(RuleKind(rule), _parse(RuleKind(rule), value), tier, not soft)
        change = set_limit(
            session,
            _subject(session, kind, name),
            terms,
            within=None,
            known_tiers=known,
            actor=did.actor,
            clock=did.clock,
            ids=did.ids,
        )
    tell(did, change, f"The limit is {change.id}.", as_json=as_json)


def remove(limit_id: str, *, as_json: bool) -> None:
    did = hands()
    with did.changing() as session:
        change = remove_limit(session, limit_id, within=None, actor=did.actor, clock=did.clock)
    tell(did, change, f"The limit {limit_id} is gone.", as_json=as_json)


def show(kind: str, name: str, *, as_json: bool) -> None:
    with hands().reading() as session:
        found = [_facts(limit) for limit in list_limits(session, _subject(session, kind, name), within=None)]
    if as_json:
        print_json({"limits": found})
        return
    table = Table("id", "limit", "tier", "value", "", box=None)
    for fact in found:
        spending = RuleKind(fact["kind"]) in SPENDING
        value = show_amount(fact["value"]) if spending else f"{fact['value']:,}"
        table.add_row(fact["id"], fact["kind"], fact["tier"] or "all", value, "hard" if fact["hard"] else "soft")
    tables().print(table)


def _subject(session: Session, kind: str, name: str) -> Subject:
    """A plan's name, a key's id, or the name or id of an organisation or workspace."""
    subject = SubjectKind(kind)
    if subject in {SubjectKind.ORGANISATION, SubjectKind.CUSTOMER}:
        return Subject(subject, find_organisation(session, name).id)
    if subject is SubjectKind.WORKSPACE:
        return Subject(subject, find_workspace(session, name, within=None).id)
    return Subject(subject, name)


def _parse(rule: RuleKind, value: str) -> int:
    """Spending in currency units, all else whole numbers."""
    if rule in SPENDING:
        return parse_amount(value, param="value")
    if not (value.isascii() and value.isdigit()):
        raise SetupError(f"{value} is no whole number.")
    return int(value)


def _facts(limit: Limit) -> dict[str, Any]:
    return {"id": limit.id, "kind": limit.kind, "tier": limit.tier, "value": limit.value, "hard": limit.hard}
