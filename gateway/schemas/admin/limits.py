"""Limits as /v1/admin shows and takes them; rate-limit and spend-limit in Mistral's shapes."""

from typing import Annotated

from pydantic import BaseModel, Field, model_validator

from billing.money import parse_amount, show_amount
from core.queue.rules import RuleKind
from gateway.accounts.limits import LimitTerms, SubjectKind
from gateway.accounts.models import Limit
from gateway.refusals import SPENDING
from gateway.schemas.admin.fields import Amount, Id, LimitValue, Name, iso
from gateway.schemas.parsing import Strict

SUBJECT_ID = "Of the workspace or key, the plan's name; of organisation and customer it may be left out."


class LimitGiven(Strict):
    """What a limit says, of a plan or of anything else."""

    kind: RuleKind = Field(strict=False)
    value: LimitValue | None = Field(default=None, description="0 lets nothing through. Spending: in nano-units.")
    amount: Amount | None = Field(default=None, description="Of spending, in place of value.")
    tier: Id | None = Field(default=None, description="Only of this tier. Absent: all together.")
    hard: bool = Field(default=True, description="false: refuse nothing, only tell.")

    @model_validator(mode="after")
    def _one_value(self) -> "LimitGiven":
        if (self.value is None) == (self.amount is None):
            raise ValueError("either value or amount")
        if self.amount is not None and self.kind not in SPENDING:
            raise ValueError("amount is for spending")
        return self

    def terms(self) -> LimitTerms:
        value = self.value if self.amount is None else parse_amount(self.amount)
        assert value is not None, "checked above"
        return LimitTerms(self.kind, value, self.tier or "", self.hard)


class LimitCreation(LimitGiven):
    """Makes the limit, or gives the one of the same subject, kind, tier and hardness this value."""

    subject_kind: SubjectKind = Field(
        strict=False,
        description="customer, workspace and key are the organisation's to set, plan and organisation the operator's.",
    )
    subject_id: Name | None = Field(default=None, description=SUBJECT_ID)


class LimitTold(BaseModel):
    kind: RuleKind
    tier: str | None
    value: int
    amount: str | None = Field(description="Of spending: value in currency units.")
    hard: bool


class LimitShown(LimitTold):
    id: str
    subject_kind: SubjectKind
    subject_id: str
    created_at: str


def told(terms: LimitTerms) -> LimitTold:
    return LimitTold(
        kind=terms.kind,
        tier=terms.tier or None,
        value=terms.value,
        amount=show_amount(terms.value) if terms.kind in SPENDING else None,
        hard=terms.hard,
    )


def shown(limit: Limit) -> LimitShown:
    terms = LimitTerms(RuleKind(limit.kind), limit.value, limit.tier, limit.hard)
    return LimitShown(
        **told(terms).model_dump(),
        id=limit.id,
        subject_kind=SubjectKind(limit.subject_kind),
        subject_id=limit.subject_id,
        created_at=iso(limit.created_ms),
    )


class TokenLimits(BaseModel):
    tokens_per_minute: int | None
    tokens_per_month: int | None


class RateLimits(BaseModel):
    """Of the organisation as a whole; null: not limited. Workspaces and keys may have tighter ones."""

    requests_per_second: float | None = Field(description="If only requests per minute are limited, a 60th of them.")
    requests_per_minute: int | None
    concurrency: int | None
    tokens_limits_by_model: dict[str, TokenLimits]


class SpendLimitUpdate(Strict):
    """What the organisation allows itself in a calendar month; the operator's own limit counts besides."""

    amount: Annotated[int, Field(ge=0, le=4_000_000)] | Amount | None = Field(
        default=None, description='Currency units: 20, or "12.50".'
    )
    no_monthly_limit: bool = Field(default=False, description="true, without amount: take the limit away.")

    @model_validator(mode="after")
    def _one_of_both(self) -> "SpendLimitUpdate":
        if (self.amount is None) != self.no_monthly_limit:
            raise ValueError("either amount or no_monthly_limit")
        return self


class CategorySpend(BaseModel):
    """`usage` is what was settled in this month; `usage_limit` the tightest of the organisation's limits."""

    no_monthly_limit: bool
    monthly_limit_reached: bool
    usage: str
    usage_nano: int
    total_usage: str
    usage_limit: str | None
    usage_limit_nano: int | None


class SpendCategories(BaseModel):
    completion: CategorySpend = Field(description="Everything: chat, fill-in-the-middle, embeddings.")
    last_payment_failure: None = None
    currency: str


class SpendLimit(BaseModel):
    limits: SpendCategories
    own_limit: str | None = Field(description="What the organisation set for itself.")
    own_limit_nano: int | None
