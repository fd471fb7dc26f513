"""What SQL knows to be used in a calendar window, to begin a counter in Redis with: at the first request of a window,
for a new rule, after a restart. What is settled and not collected at that moment is missing: mostly a second's.
"""

from sqlalchemy import BigInteger, cast, func, select

from billing.models import UsageSpan
from core.db import Database
from core.queue.rules import Rule, RuleKind, Window

_SCOPES = {"organisation": UsageSpan.organisation, "workspace": UsageSpan.workspace, "key": UsageSpan.key_id}


def used_in_window(database: Database, organisation: str, rule: Rule, window: Window) -> int:
    """Tokens or nano-units, from the roll-ups: windows begin and end with a quarter of an hour in every time zone."""
    tokens = rule.kind is RuleKind.TOKENS_PER_MONTH
    counted = UsageSpan.prompt_tokens + UsageSpan.completion_tokens if tokens else UsageSpan.cost_nano
    query = select(func.coalesce(cast(func.sum(counted), BigInteger), 0)).where(
        UsageSpan.organisation == organisation,
        UsageSpan.start_ms >= window.start_ms,
        UsageSpan.start_ms < window.end_ms,
        _SCOPES[rule.scope] == rule.scope_id,
    )
    if rule.tier:
        query = query.where(UsageSpan.tier == rule.tier)
    with database.reading() as session:
        return session.scalars(query).one()
