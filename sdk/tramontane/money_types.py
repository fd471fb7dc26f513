"""What the admin API answers about limits, plans, credit, prices and usage. Amounts are decimal strings in the
platform's currency, and exact in nano-units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional

from tramontane.wire.decode import Answer


@dataclass(frozen=True)
class Customer(Answer):
    """Who is billed."""

    organisation_id: str
    name: str
    address: str
    email: str
    currency: str
    time_zone: str


@dataclass(frozen=True)
class LimitTerms(Answer):
    """`tier` None: all together. `amount` is of spending only: `value` in currency units."""

    kind: str
    value: int
    hard: bool
    tier: Optional[str] = None
    amount: Optional[str] = None


@dataclass(frozen=True)
class Limit(Answer):
    id: str
    subject_kind: str
    subject_id: str
    kind: str
    value: int
    hard: bool
    created_at: str
    tier: Optional[str] = None
    amount: Optional[str] = None


@dataclass(frozen=True)
class TokenLimits(Answer):
    tokens_per_minute: Optional[int] = None
    tokens_per_month: Optional[int] = None


@dataclass(frozen=True)
class RateLimits(Answer):
    """Of the organisation as a whole; None: not limited."""

    tokens_limits_by_model: Dict[str, TokenLimits]
    requests_per_second: Optional[float] = None
    requests_per_minute: Optional[int] = None
    concurrency: Optional[int] = None


@dataclass(frozen=True)
class CategorySpend(Answer):
    no_monthly_limit: bool
    monthly_limit_reached: bool
    usage: str
    usage_nano: int
    total_usage: str
    usage_limit: Optional[str] = None
    usage_limit_nano: Optional[int] = None


@dataclass(frozen=True)
class SpendCategories(Answer):
    completion: CategorySpend
    currency: str
    last_payment_failure: Optional[str] = None


@dataclass(frozen=True)
class SpendLimit(Answer):
    limits: SpendCategories
    own_limit: Optional[str] = None
    own_limit_nano: Optional[int] = None


@dataclass(frozen=True)
class Plan(Answer):
    name: str
    credit: str
    credit_nano: int
    weight: int
    limits: List[LimitTerms]


@dataclass(frozen=True)
class Grant(Answer):
    id: str
    key: str
    kind: str
    amount: str
    amount_nano: int
    remaining: str
    remaining_nano: int
    priority: int
    created_at: str
    created_by: str
    note: str
    expires_at: Optional[str] = None


@dataclass(frozen=True)
class CellCredit(Answer):
    available: str
    available_nano: int
    reserved: str
    reserved_nano: int


@dataclass(frozen=True)
class Credit(Answer):
    """available = balance - held + limit. `cell` is the part of `held` that can be spent at this moment."""

    organisation_id: str
    currency: str
    balance: str
    balance_nano: int
    held: str
    held_nano: int
    limit: str
    limit_nano: int
    available: str
    available_nano: int
    owed: str
    owed_nano: int
    grants: List[Grant]
    cell: Optional[CellCredit] = None


@dataclass(frozen=True)
class Price(Answer):
    """Per million tokens in currency units; `_nano` per thousand. `plan`, `organisation` None: for everybody."""

    version: str
    tier: str
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
    plan: Optional[str] = None
    organisation: Optional[str] = None


@dataclass(frozen=True)
class PriceTerms(Answer):
    tier: str
    plan: str
    organisation: str
    input: str
    cached: str
    output: str
    batch_percent: int


@dataclass(frozen=True)
class PriceChange(Answer):
    """`before` None: the first of its scope."""

    after: PriceTerms
    before: Optional[PriceTerms] = None


@dataclass(frozen=True)
class PriceChanges(Answer):
    changes: List[PriceChange]


@dataclass(frozen=True)
class UsageEntry(Answer):
    """Tokens of one model and class (input, cached, output) in one day."""

    billing_metric: str
    billing_group: str
    timestamp: str
    value: int
    event_type: str = "api_tokens"


@dataclass(frozen=True)
class ModelUsage(Answer):
    input: List[UsageEntry]
    cached: List[UsageEntry]
    output: List[UsageEntry]
    requests: int
    cost: str
    cost_nano: int


@dataclass(frozen=True)
class CategoryUsage(Answer):
    models: Dict[str, ModelUsage]


@dataclass(frozen=True)
class UsagePrice(Answer):
    billing_metric: str
    billing_group: str
    price: str
    price_nano: int
    version: str
    event_type: str = "api_tokens"


@dataclass(frozen=True)
class MonthlyUsage(Answer):
    start_date: str
    end_date: str
    previous_month: str
    next_month: str
    time_zone: str
    currency: str
    currency_symbol: str
    prices: List[UsagePrice]
    completion: CategoryUsage
    embedding: CategoryUsage
    requests: int
    total: str
    total_nano: int
