"""Credit as /v1/admin shows and takes it."""

from pydantic import BaseModel, Field

from billing.grants import GIVEN_PRIORITY, PRIORITY_MAX, Grant, GrantKind, Statement
from billing.money import show_amount
from core.meter.credit import Level
from gateway.schemas.admin.fields import Amount, AmountNano, Moment, Note, iso, iso_or_none
from gateway.schemas.parsing import Strict

GRANTS_SHOWN_MAX = 1_000


class TopUp(Strict):
    amount: Amount
    note: Note = ""


class GrantCreation(TopUp):
    expires_at: Moment | None = Field(default=None, description="Absent: never.")
    priority: int = Field(
        default=GIVEN_PRIORITY, ge=0, le=PRIORITY_MAX, description="Low ones are used first; what was paid has 100."
    )


class CreditLimitUpdate(Strict):
    amount: Amount = Field(description="How far the balance may go below zero; above 0 the organisation is postpaid.")


class GrantShown(BaseModel):
    id: str
    key: str = Field(description="The Idempotency-Key that it was given under.")
    kind: GrantKind
    amount: str
    amount_nano: AmountNano
    remaining: str
    remaining_nano: AmountNano
    priority: int
    expires_at: str | None
    created_at: str
    created_by: str
    note: str


class CellCredit(BaseModel):
    """The part of `held` that the cell can spend now."""

    available: str
    available_nano: AmountNano
    reserved: str = Field(description="In open requests.")
    reserved_nano: AmountNano


class Credit(BaseModel):
    """available = balance - held + limit: what is not yet handed to the cell."""

    organisation_id: str
    currency: str
    balance: str
    balance_nano: AmountNano
    held: str = Field(description="Handed to the cell, so that admission need not ask SQL; settled requests use it up.")
    held_nano: AmountNano
    limit: str
    limit_nano: AmountNano
    available: str
    available_nano: AmountNano
    owed: str = Field(description="Used beyond what was paid and given, on credit.")
    owed_nano: AmountNano
    cell: CellCredit | None = Field(description="null: Redis does not answer.")
    grants: list[GrantShown] = Field(description="With something left, in the order in which they are used.")


def shown_grant(grant: Grant) -> GrantShown:
    return GrantShown(
        id=grant.id,
        key=grant.key,
        kind=GrantKind(grant.kind),
        amount=show_amount(grant.amount_nano),
        amount_nano=grant.amount_nano,
        remaining=show_amount(grant.remaining_nano),
        remaining_nano=grant.remaining_nano,
        priority=grant.priority,
        expires_at=iso_or_none(grant.expires_ms),
        created_at=iso(grant.created_ms),
        created_by=grant.created_by,
        note=grant.note,
    )


def shown_credit(organisation: str, currency: str, found: Statement, level: Level | None) -> Credit:
    account = found.account
    return Credit(
        organisation_id=organisation,
        currency=currency,
        balance=show_amount(account.posted_nano),
        balance_nano=account.posted_nano,
        held=show_amount(account.held_nano),
        held_nano=account.held_nano,
        limit=show_amount(account.limit_nano),
        limit_nano=account.limit_nano,
        available=show_amount(account.available_nano),
        available_nano=account.available_nano,
        owed=show_amount(found.owed_nano),
        owed_nano=found.owed_nano,
        cell=None if level is None else _cell(level),
        grants=[shown_grant(grant) for grant in found.grants[:GRANTS_SHOWN_MAX]],
    )


def _cell(level: Level) -> CellCredit:
    return CellCredit(
        available=show_amount(level.available_nano),
        available_nano=level.available_nano,
        reserved=show_amount(level.reserved_nano),
        reserved_nano=level.reserved_nano,
    )
