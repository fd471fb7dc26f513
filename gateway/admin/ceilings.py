"""What bounds an organisation as a whole, and how far its month is spent."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.calendar import windows
from billing.customers import time_zone_of
from billing.money import show_amount
from billing.usage import UsageQuery, report
from core.queue.rules import Rule, RuleKind
from gateway.accounts.limits import SubjectKind
from gateway.accounts.models import Limit, Organisation
from gateway.accounts.rules import Bound, RuleIds, effective_rules
from gateway.schemas.admin.limits import CategorySpend, RateLimits, SpendCategories, SpendLimit, TokenLimits

MONTHLY = RuleKind.SPEND_PER_MONTH
SECONDS_PER_MINUTE = 60


def rate_limits(session: Session, organisation: str, tiers: Sequence[str]) -> RateLimits:
    rules = organisation_rules(session, organisation)
    per_minute = _least(rules, RuleKind.REQUESTS_PER_MINUTE)
    per_second = _least(rules, RuleKind.REQUESTS_PER_SECOND)
    shown_per_second = per_minute / SECONDS_PER_MINUTE if per_second is None and per_minute is not None else per_second
    return RateLimits(
        requests_per_second=shown_per_second,
        requests_per_minute=per_minute,
        concurrency=_least(rules, RuleKind.CONCURRENCY),
        tokens_limits_by_model={
            tier: TokenLimits(
                tokens_per_minute=_least(rules, RuleKind.TOKENS_PER_MINUTE, tier),
                tokens_per_month=_least(rules, RuleKind.TOKENS_PER_MONTH, tier),
            )
            for tier in tiers
        },
    )


def spend_limit(session: Session, organisation: str, currency: str, now_ms: int) -> SpendLimit:
    zone = time_zone_of(session, organisation)
    month, _ = windows(MONTHLY, zone, now_ms)
    query = UsageQuery(organisation, month.start_ms, month.end_ms, time_zone=zone)
    used_nano = sum(line.cost_nano for line in report(session, query, count=1))
    limit_nano = _least(organisation_rules(session, organisation), MONTHLY)
    own = own_monthly(session, organisation)
    spent = show_amount(used_nano)
    completion = CategorySpend(
        no_monthly_limit=limit_nano is None,
        monthly_limit_reached=limit_nano is not None and used_nano >= limit_nano,
        usage=spent,
        usage_nano=used_nano,
        total_usage=spent,
        usage_limit=None if limit_nano is None else show_amount(limit_nano),
        usage_limit_nano=limit_nano,
    )
    return SpendLimit(
        limits=SpendCategories(completion=completion, currency=currency),
        own_limit=None if own is None else show_amount(own.value),
        own_limit_nano=None if own is None else own.value,
    )


def own_monthly(session: Session, organisation: str) -> Limit | None:
    """What the organisation set for itself."""
    query = select(Limit).where(
        Limit.subject_kind == SubjectKind.CUSTOMER.value,
        Limit.subject_id == organisation,
        Limit.kind == MONTHLY.value,
        Limit.tier == "",
        Limit.hard,
    )
    return session.scalars(query).one_or_none()


def organisation_rules(session: Session, organisation: str) -> tuple[Rule, ...]:
    """As admission checks them for each of its keys; without windows."""
    plan = session.get_one(Organisation, organisation).plan
    subjects = {
        SubjectKind.PLAN.value: plan,
        SubjectKind.ORGANISATION.value: organisation,
        SubjectKind.CUSTOMER.value: organisation,
    }
    bounds = [
        Bound(SubjectKind(limit.subject_kind), RuleKind(limit.kind), limit.value, limit.tier, limit.hard)
        for kind, name in subjects.items()
        for limit in session.scalars(select(Limit).where(Limit.subject_kind == kind, Limit.subject_id == name))
    ]
    return effective_rules(bounds, RuleIds(organisation, "", ""), lambda _: ())


def _least(rules: Sequence[Rule], kind: RuleKind, tier: str = "") -> int | None:
    """Of the hard rules that a request for this tier meets."""
    found = [rule.limit for rule in rules if rule.kind is kind and rule.hard and rule.tier in {"", tier}]
    return min(found, default=None)
