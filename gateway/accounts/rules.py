"""From the limits of plan, organisation, workspace and key to the rules that admission checks, in its order."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from core.queue.rules import CALENDAR, Rule, RuleKind, Window
from gateway.accounts.limits import SubjectKind

ORGANISATION, WORKSPACE, KEY = "organisation", "workspace", "key"
_KINDS = (
    RuleKind.REQUESTS_PER_SECOND,
    RuleKind.REQUESTS_PER_MINUTE,
    RuleKind.TOKENS_PER_MINUTE,
    RuleKind.TOKENS_PER_MONTH,
    RuleKind.CONCURRENCY,
    RuleKind.SPEND_PER_DAY,
    RuleKind.SPEND_PER_MONTH,
)
_SCOPES = (ORGANISATION, WORKSPACE, KEY)


@dataclass(frozen=True, slots=True)
class Bound:
    """A limit as it is kept: of whom, for which tier (empty: all together)."""

    subject: SubjectKind
    kind: RuleKind
    value: int
    tier: str = ""
    hard: bool = True


@dataclass(frozen=True, slots=True)
class RuleIds:
    """What the three scopes are called for one key."""

    organisation: str
    workspace: str
    key: str


def effective_rules(
    bounds: Iterable[Bound], ids: RuleIds, windows: Callable[[RuleKind], tuple[Window, ...]]
) -> tuple[Rule, ...]:
    """For each tier, kind and hardness the organisation's own bound counts in place of its plan's, and what it has set
    for itself if that is tighter; workspace and key stand beside. Calendar kinds get their windows.
    """
    by_subject: dict[SubjectKind, dict[tuple[str, RuleKind, bool], int]] = {subject: {} for subject in SubjectKind}
    for bound in bounds:
        by_subject[bound.subject][(bound.tier, bound.kind, bound.hard)] = bound.value
    organisation = {**by_subject[SubjectKind.PLAN], **by_subject[SubjectKind.ORGANISATION]}
    for what, value in by_subject[SubjectKind.CUSTOMER].items():
        organisation[what] = min(value, organisation.get(what, value))
    scopes = (
        (ORGANISATION, ids.organisation, organisation),
        (WORKSPACE, ids.workspace, by_subject[SubjectKind.WORKSPACE]),
        (KEY, ids.key, by_subject[SubjectKind.KEY]),
    )
    rules = [
        Rule(kind, scope, scope_id, value, tier, hard, windows(kind) if kind in CALENDAR else ())
        for scope, scope_id, values in scopes
        for (tier, kind, hard), value in values.items()
    ]
    return tuple(sorted(rules, key=_order))


def _order(rule: Rule) -> tuple[int, int, str, bool]:
    return _KINDS.index(rule.kind), _SCOPES.index(rule.scope), rule.tier, not rule.hard
