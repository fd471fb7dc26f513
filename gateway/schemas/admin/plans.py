"""Plans and prices as /v1/admin shows and takes them: the operator's."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from billing.money import parse_amount, show_amount, show_price
from billing.price_lists import BATCH_PERCENT, PriceChange, PriceFile, parse_price_list
from billing.prices import VERSION_LENGTH_MAX, PriceVersion
from gateway.accounts.limits import LIMITS_MAX
from gateway.accounts.plans import WEIGHT_MAX, PlanTerms
from gateway.accounts.pricing import entry_facts
from gateway.schemas.admin.fields import Amount, AmountNano, Id, Moment, Name, Note, iso
from gateway.schemas.admin.limits import LimitGiven, LimitTold, told
from gateway.schemas.parsing import Strict

PRICES_MAX = 1_000
PerMillion = Annotated[
    str,
    Field(pattern=r"^[0-9]{1,5}(\.[0-9]{1,6})?$", description='Currency units per million tokens: "0.14".'),
]


class PlanUpdate(Strict):
    """All of a plan: it is made, or gets these terms and no others."""

    name: Name
    credit: Amount = Field(description="Given once, to organisations that begin with this plan.")
    weight: int = Field(default=1, ge=1, le=WEIGHT_MAX, description="Share in the fair queue.")
    limits: tuple[LimitGiven, ...] = Field(default=(), max_length=LIMITS_MAX)

    def terms(self) -> PlanTerms:
        limits = tuple(limit.terms() for limit in self.limits)
        return PlanTerms(self.name, parse_amount(self.credit), self.weight, limits)


class PlanShown(BaseModel):
    name: str
    credit: str
    credit_nano: AmountNano
    weight: int
    limits: list[LimitTold]


class PriceLine(Strict):
    """For everybody, or for one plan, or for one organisation."""

    tier: Id
    plan: Name | None = None
    organisation: Id | None = Field(default=None, description="Its id.")
    input: PerMillion
    output: PerMillion = "0"
    cached: PerMillion | None = Field(default=None, description="Absent: as input.")
    batch_percent: int = Field(default=BATCH_PERCENT, ge=0, le=100, description="What a batch line pays of it.")


class PriceListCreation(Strict):
    """A line becomes a new version where it differs from what is in force at the start; nothing is ever changed."""

    version: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,23}$", description="Such as 2026-11.")
    start: Moment | None = Field(default=None, description="At least a minute ahead. Absent: a minute from now.")
    note: Note = ""
    prices: tuple[PriceLine, ...] = Field(min_length=1, max_length=PRICES_MAX)

    def to_file(self) -> PriceFile:
        """Raises PlatformError (VALIDATION)."""
        raw: dict[str, Any] = self.model_dump(exclude_none=True)
        found = parse_price_list(raw)
        return PriceFile(found.version, found.entries(), found.start_ms, found.note)


class PriceShown(BaseModel):
    """Currency units per million tokens, and nano-units per thousand."""

    version: str = Field(max_length=VERSION_LENGTH_MAX)
    tier: str
    plan: str | None
    organisation: str | None
    input: str
    input_nano: int
    cached: str
    cached_nano: int
    output: str
    output_nano: int
    batch_percent: int
    start: str
    created_at: str
    note: str


class PriceTerms(BaseModel):
    tier: str
    plan: str
    organisation: str
    input: str
    cached: str
    output: str
    batch_percent: int


class PriceChangeShown(BaseModel):
    before: PriceTerms | None = Field(description="null: the first of its scope.")
    after: PriceTerms


class PriceChanges(BaseModel):
    """Empty: nothing differed."""

    changes: list[PriceChangeShown]


def shown_plan(plan: PlanTerms) -> PlanShown:
    return PlanShown(
        name=plan.name,
        credit=show_amount(plan.credit_nano),
        credit_nano=plan.credit_nano,
        weight=plan.weight,
        limits=[told(limit) for limit in plan.limits],
    )


def shown_price(version: PriceVersion) -> PriceShown:
    return PriceShown(
        version=version.version,
        tier=version.tier,
        plan=version.plan or None,
        organisation=version.organisation or None,
        input=show_price(version.input_nano),
        input_nano=version.input_nano,
        cached=show_price(version.cached_nano),
        cached_nano=version.cached_nano,
        output=show_price(version.output_nano),
        output_nano=version.output_nano,
        batch_percent=version.batch_percent,
        start=iso(version.start_ms),
        created_at=iso(version.created_ms),
        note=version.note,
    )


def shown_change(change: PriceChange) -> PriceChangeShown:
    before = None if change.before is None else PriceTerms(**entry_facts(change.before))
    return PriceChangeShown(before=before, after=PriceTerms(**entry_facts(change.after)))
