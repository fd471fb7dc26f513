"""What `tramontane credit` does."""

import sys
from collections.abc import Callable
from typing import Any

from rich.table import Table
from sqlalchemy.orm import Session

from billing import grants
from billing.money import parse_amount, show_amount
from cli.accounts.acting import Hands, hands, moment, print_json
from cli.database import in_one_sentence
from cli.terminal import tables
from cli.usage import parse_time_ms
from gateway.accounts.credit import Gift, book_correction, book_gift, book_top_up, change_credit_limit
from gateway.accounts.organisations import find_organisation

_KEY_BYTES = 16


def show(org: str, *, as_json: bool) -> None:
    with hands().reading() as session:
        facts = _facts(session, find_organisation(session, org).id)
    _print(facts, as_json=as_json)


def top_up(org: str, amount: str, *, key: str | None, note: str, as_json: bool) -> None:
    nano = _nano(amount)

    def work(session: Session, did: Hands, organisation: str, own_key: str) -> None:
        book_top_up(session, organisation, nano, key=own_key, note=note, actor=did.actor, clock=did.clock)

    _change(org, work, key=key, as_json=as_json)


def grant(
    org: str, amount: str, *, expires: str | None, priority: int, key: str | None, note: str, as_json: bool
) -> None:
    gift = Gift(_nano(amount), priority, None if expires is None else parse_time_ms(expires, "--expires"), note)

    def work(session: Session, did: Hands, organisation: str, own_key: str) -> None:
        book_gift(session, organisation, gift, key=own_key, actor=did.actor, clock=did.clock)

    _change(org, work, key=key, as_json=as_json)


def correct(org: str, amount: str, *, against: grants.Against, key: str | None, note: str, as_json: bool) -> None:
    nano = _nano(amount, signed=True)

    def work(session: Session, did: Hands, organisation: str, own_key: str) -> None:
        book_correction(
            session, organisation, nano, against=against, key=own_key, note=note, actor=did.actor, clock=did.clock
        )

    _change(org, work, key=key, as_json=as_json)


def set_limit(org: str, amount: str, *, as_json: bool) -> None:
    nano = _nano(amount)

    def work(session: Session, did: Hands, organisation: str, _key: str) -> None:
        change_credit_limit(session, organisation, nano, actor=did.actor, clock=did.clock)

    _change(org, work, key=None, as_json=as_json)


def _nano(amount: str, *, signed: bool = False) -> int:
    with in_one_sentence():
        return parse_amount(amount, signed=signed)


def _change(org: str, work: Callable[[Session, Hands, str, str], None], *, key: str | None, as_json: bool) -> None:
    """Do it in one transaction with its entry in the audit log, then show how the account stands."""
    did = hands()
    own_key = did.ids.token(_KEY_BYTES) if key is None else key
    with did.changing() as session:
        organisation = find_organisation(session, org).id
        work(session, did, organisation, own_key)
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
