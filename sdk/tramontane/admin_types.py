"""What the admin API answers. Amounts are decimal strings in the platform's currency, and exact in nano-units."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

from tramontane.wire.decode import Answer


@dataclass(frozen=True)
class Key(Answer):
    """`can_delete` False: it is revoked."""

    key_id: str
    name: str
    hidden_key: str
    created_at: str
    workspace_id: str
    workspace_name: str
    organisation_id: str
    created_by: str
    scopes: List[str]
    can_delete: bool
    networks: List[str]
    expiration_date: Optional[str] = None
    user_id: Optional[str] = None
    product: str = "API"
    last_used: Optional[str] = None
    revoked_at: Optional[str] = None
    overlap_until: Optional[str] = None
    tiers: Optional[List[str]] = None


@dataclass(frozen=True)
class NewKey(Key):
    """`key` is the key itself: shown only now, and never in a repr."""

    key: str = field(default="", repr=False)


@dataclass(frozen=True)
class KeyList(Answer):
    keys: List[Key]


@dataclass(frozen=True)
class Organisation(Answer):
    """`status`: active or suspended."""

    id: str
    name: str
    plan: str
    status: str
    lenient: bool
    created_at: str


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
class Workspace(Answer):
    id: str
    name: str
    organisation_id: str
    is_default: bool
    created_at: str
    lenient: Optional[bool] = None
    archived_at: Optional[str] = None


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
class Member(Answer):
    """`role` None: only in workspaces."""

    id: str
    kind: str
    name: str
    workspace_roles: Dict[str, str]
    email: Optional[str] = None
    role: Optional[str] = None
    disabled_at: Optional[str] = None
    last_login_at: Optional[str] = None


@dataclass(frozen=True)
class MemberRole(Answer):
    id: str
    role: str


@dataclass(frozen=True)
class ServiceAccount(Answer):
    id: str
    role: str
    name: str


@dataclass(frozen=True)
class Departure(Answer):
    id: str
    keys_revoked: List[str]
    keys_kept: List[str]


@dataclass(frozen=True)
class Invite(Answer):
    id: str
    email: str
    role: str
    created_by: str
    created_at: str
    expires_at: str
    workspace_id: Optional[str] = None


@dataclass(frozen=True)
class NewInvite(Answer):
    """`url` is the link, shown only now, and only where no mail is sent; never in a repr."""

    id: str
    email: str
    role: str
    expires_at: str
    mailed: bool
    url: Optional[str] = field(default=None, repr=False)


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


@dataclass(frozen=True)
class Actor(Answer):
    kind: str
    id: str
    name: str


@dataclass(frozen=True)
class Target(Answer):
    kind: str
    id: str


@dataclass(frozen=True)
class AuditEntry(Answer):
    id: int
    created_at: str
    actor: Actor
    action: str
    target: Target
    address: str
    request_id: str
    organisation_id: Optional[str] = None
    before: Optional[Dict[str, Any]] = None
    after: Optional[Dict[str, Any]] = None


@dataclass(frozen=True)
class AuditPage(Answer):
    """`next_before_id` None: this is the last page."""

    data: List[AuditEntry]
    next_before_id: Optional[int] = None


@dataclass(frozen=True)
class RefusedRequest(Answer):
    request_id: str
    at: str
    workspace_id: str
    key_id: str
    route: str
    status: int
    code: str
    left_out: int
    tier: Optional[str] = None
    rule: Optional[str] = None
    scope: Optional[str] = None
    limit: Optional[int] = None
    remaining: Optional[int] = None
