"""What `tramontane credit` does."""

import sys
from collections.abc import Callable
from typing import Any

from rich.table import Table
from sqlalchemy.orm import Session

from billing import accounts, grants
from billing.money import parse_amount, show_amount
from cli.accounts.acting import Hands, hands, moment, print_json
from cli.database import in_one_sentence
from cli.terminal import tables
from cli.usage import parse_time_ms
from core.errors import SetupError
from gateway.accounts.organisations import find_organisation
from gateway.accounts.trail import Target, record

_KEY_BYTES = 16


def show(org: str, *, as_json: bool) -> None:
    with hands().reading() as session:
        facts = _facts(session, find_organisation(session, org).id)
    _print(facts, as_json=as_json)


def top_up(org: str, amount: str, *, key: str | None, note: str, as_json: bool) -> None:
    amount_nano = _nano(amount)

    def work(session: Session, did: Hands, organisation: str, own_key: str) -> None:
        by = did.actor.label
        grants.top_up(session, organisation, amount_nano, key=own_key, clock=did.clock, created_by=by, note=note)

    _change(org, "credit.top_up", {"amount_nano": amount_nano, "note": note}, work, key=key, as_json=as_json)


def grant(
    org: str, amount: str, *, expires: str | None, priority: int, key: str | None, note: str, as_json: bool
) -> None:
    amount_nano = _nano(amount)
    expires_ms = None if expires is None else parse_time_ms(expires, "--expires")

    def work(session: Session, did: Hands, organisation: str, own_key: str) -> None:
        grants.grant(
            session,
            organisation,
            amount_nano,
            key=own_key,
            clock=did.clock,
            priority=priority,
            expires_ms=expires_ms,
            created_by=did.actor.label,
            note=note,
        )

    what = {"amount_nano": amount_nano, "expires_ms": expires_ms, "priority": priority, "note": note}
    _change(org, "credit.grant", what, work, key=key, as_json=as_json)


def correct(org: str, amount: str, *, against: grants.Against, key: str | None, note: str, as_json: bool) -> None:
    amount_nano = _nano(amount, signed=True)

    def work(session: Session, did: Hands, organisation: str, own_key: str) -> None:
        by = did.actor.label
        grants.correct(
            session,
            organisation,
            amount_nano,
            against=against,
            key=own_key,
            clock=did.clock,
            created_by=by,
            note=note,
        )

    what = {"amount_nano": amount_nano, "against": against, "note": note}
    _change(org, "credit.correct", what, work, key=key, as_json=as_json)


def set_limit(org: str, amount: str, *, as_json: bool) -> None:
    limit_nano = _nano(amount)

    def work(session: Session, _did: Hands, organisation: str, _key: str) -> None:
        if not accounts.set_limit(session, organisation, limit_nano):
            raise SetupError(f"{org} has used or holds more than that beyond its balance.")

    _change(org, "credit.set_limit", {"limit_nano": limit_nano}, work, key=None, as_json=as_json)


def _nano(amount: str, *, signed: bool = False) -> int:
    with in_one_sentence():
        return parse_amount(amount, signed=signed)


def _change(
    org: str,
    action: str,
    what: dict[str, Any],
    work: Callable[[Session, Hands, str, str], None],
    *,
    key: str | None,
    as_json: bool,
) -> None:
    """Do it and write it into the audit log in one transaction, then show how the account stands."""
    did = hands()
    own_key = did.ids.token(_KEY_BYTES) if key is None else key
    with did.changing() as session:
        organisation = find_organisation(session, org).id
        work(session, did, organisation, own_key)
        record(
            session,
            did.actor,
            action,
            Target("credit_account", organisation),
            organisation=organisation,
            now_ms=did.clock.now_ms(),
            after={**what, "key": own_key},
        )
        facts = _facts(session, organisation)
    _print(facts, as_json=as_json)


def _facts(session: Session, organisation: str) -> dict[str, Any]:
    found = grants.statement(session, organisation)
    return {
        "organisation": organisation,
        "balance": show_amount(found.account.posted_nano),
        "held": show_amount(found.account.held_nano),
        "limit": show_amount(found.account.limit_nano),
        "available": show_amount(found.account.available_nano),
        "owed": show_amount(found.owed_nano),
        "grants": [
            {
                "id": each.id,
                "kind": each.kind,
                "amount": show_amount(each.amount_nano),
                "remaining": show_amount(each.remaining_nano),
                "priority": each.priority,
                "expires_ms": each.expires_ms,
                "created_ms": each.created_ms,
                "note": each.note,
            }
            for each in found.grants
        ],
    }


def _print(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    for field in ("balance", "held", "limit", "available", "owed"):
        sys.stdout.write(f"{field:<10} {facts[field]}\n")
    table = Table("grant", "kind", "amount", "remaining", "priority", "expires", "note", box=None)
    for each in facts["grants"]:
        texts = (each["id"], each["kind"], each["amount"], each["remaining"], str(each["priority"]))
        table.add_row(*texts, moment(each["expires_ms"]), each["note"])
    tables().print(table)
