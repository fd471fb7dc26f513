"""How rules stand: what Redis counts, begun with what SQL knows where nothing was counted yet."""

from collections.abc import Sequence

from billing.windows import seed_counters
from core.db import Database
from core.meter.credit import CounterStore
from core.queue.rules import Rule, RuleState, Window


async def rule_states(
    counters: CounterStore, database: Database, organisation: str, rules: Sequence[Rule], now_ms: int
) -> Sequence[RuleState]:
    """In the order of the rules. A calendar rule that stands as unused may be one that nothing has counted here yet:
    SQL knows. Raises DatabaseUnavailableError, or what Redis raises.
    """
    states = await counters.states(rules)
    unsure = [
        (state.rule, window)
        for state in states
        if state.remaining == state.rule.limit and (window := current_window(state.rule, now_ms)) is not None
    ]
    if not unsure:
        return states
    await seed_counters(counters, database, organisation, unsure)
    return await counters.states(rules)


def current_window(rule: Rule, now_ms: int) -> Window | None:
    """Of a calendar rule."""
    return next((window for window in rule.windows if window.start_ms <= now_ms < window.end_ms), None)
