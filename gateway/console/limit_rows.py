"""The rules that hold for an organisation, a workspace or a key, as the page of limits shows them: where each comes
from, how far it is used, how often it refused.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from billing.calendar import windows
from core.meter.refusals import RefusalEvent
from core.queue.rules import CALENDAR, Rule, RuleKind, RuleState
from gateway.accounts.limits import Subject, SubjectKind
from gateway.accounts.models import Limit
from gateway.accounts.rules import KEY, ORGANISATION, WORKSPACE, Bound, RuleIds, effective_rules
from gateway.console.limit_forms import TITLES
from gateway.console.table import Column, Row
from gateway.limit_states import current_window
from gateway.refusals import SPENDING

OF_SCOPE: Mapping[str, tuple[SubjectKind, ...]] = {
    ORGANISATION: (SubjectKind.PLAN, SubjectKind.ORGANISATION, SubjectKind.CUSTOMER),
    WORKSPACE: (SubjectKind.WORKSPACE,),
    KEY: (SubjectKind.KEY,),
}
SOURCES: Mapping[SubjectKind, str] = {
    SubjectKind.PLAN: "plan",
    SubjectKind.ORGANISATION: "set by the operator",
    SubjectKind.CUSTOMER: "your own cap",
    SubjectKind.WORKSPACE: "workspace",
    SubjectKind.KEY: "key",
}
COLUMNS = (
    Column("rule", "Limit", "cell", lambda row: f"{row['title']} {row['scope']} {row['tier']}"),
    Column("share", "Used", "cell"),
    Column("reset_ms", "Free again", "cell"),
    Column("source", "Set in", "cell", lambda row: SOURCES[row["source"]]),
    Column("refused", "Refused, 24 h", "cell"),
    Column("actions", "", "cell", lambda _: "", sortable=False),
)
FILE_COLUMNS = (
    Column("kind", "Kind"),
    Column("scope", "Scope"),
    Column("scope_id", "Scope id"),
    Column("tier", "Tier"),
    Column("hard", "Hard"),
    Column("limit", "Value"),
    Column("used", "Used"),
    Column("remaining", "Remaining"),
    Column("reset_ms", "Reset"),
    Column("window", "Window"),
    Column("source", "Source", value=lambda row: row["source"].value),
    Column("refused", "Refused"),
)


@dataclass(frozen=True, slots=True)
class Applied:
    """A rule, and the limits that it is made of: the first is the one that counts."""

    rule: Rule
    limits: tuple[Limit, ...]


def subjects_of(organisation: str, plan: str, workspace: str, key: str) -> list[Subject]:
    """`workspace` and `key` empty: of the organisation alone."""
    ids = {
        SubjectKind.PLAN: plan,
        SubjectKind.ORGANISATION: organisation,
        SubjectKind.CUSTOMER: organisation,
        SubjectKind.WORKSPACE: workspace,
        SubjectKind.KEY: key,
    }
    return [Subject(kind, name) for kind, name in ids.items() if name]


def applied_rules(limits: Sequence[Limit], ids: RuleIds, zone: str, now_ms: int) -> list[Applied]:
    """As admission checks them, in its order."""
    bounds = [
        Bound(SubjectKind(each.subject_kind), RuleKind(each.kind), each.value, each.tier, each.hard) for each in limits
    ]
    rules = effective_rules(bounds, ids, cache(lambda kind: windows(kind, zone, now_ms)))
    return [Applied(rule, _made_of(rule, limits)) for rule in rules]


def _made_of(rule: Rule, limits: Sequence[Limit]) -> tuple[Limit, ...]:
    """An override counts in place of the plan, and the organisation's own cap where it is tighter."""
    found = {
        SubjectKind(each.subject_kind): each
        for each in limits
        if SubjectKind(each.subject_kind) in OF_SCOPE[rule.scope]
        and (each.kind, each.tier, each.hard) == (rule.kind.value, rule.tier, rule.hard)
    }
    base, own = found.get(SubjectKind.ORGANISATION) or found.get(SubjectKind.PLAN), found.get(SubjectKind.CUSTOMER)
    first = own if own is not None and (base is None or own.value < base.value) else base
    everything = list(found.values()) if first is None else [first, *(each for each in found.values() if each != first)]
    return tuple(everything)


def limit_row(
    applied: Applied,
    state: RuleState | None,
    refused: int,
    may_remove: Callable[[Limit], bool],
    now_ms: int,
) -> Row:
    """`state` None: nobody can tell now."""
    rule = applied.rule
    window = current_window(rule, now_ms)
    used = None if state is None else rule.limit - state.remaining
    parts = (rule.kind.value, rule.scope, rule.tier.replace(".", "-"), "hard" if rule.hard else "soft")
    return {
        "id": "-".join(part for part in parts if part),
        "kind": rule.kind.value,
        "title": TITLES[rule.kind],
        "scope": rule.scope,
        "scope_id": rule.scope_id,
        "tier": rule.tier,
        "hard": rule.hard,
        "limit": rule.limit,
        "used": used,
        "remaining": None if state is None else state.remaining,
        "share": None if used is None else used / rule.limit if rule.limit else 1.0,
        "reset_ms": None if state is None else state.reset_ms,
        "window": None if window is None else window.id,
        "calendar": rule.kind in CALENDAR,
        "spending": rule.kind in SPENDING,
        "at_once": rule.kind is RuleKind.CONCURRENCY,
        "source": SubjectKind(applied.limits[0].subject_kind),
        "others": [(SOURCES[SubjectKind(each.subject_kind)], each.value) for each in applied.limits[1:]],
        "refused": refused,
        "removable": [
            (each.id, SOURCES[SubjectKind(each.subject_kind)], each.value)
            for each in applied.limits
            if may_remove(each)
        ],
    }


def refused_by(rules: Sequence[Rule], events: Sequence[RefusalEvent]) -> dict[Rule, int]:
    """How many requests each rule refused, those that were only counted included. An event says neither which tier its
    rule is for nor whether it has changed since: it goes to the rule that fits best.
    """
    found: dict[Rule, int] = dict.fromkeys(rules, 0)
    for event in events:
        fitting = [rule for rule in rules if rule.hard and _fits(rule, event)]
        if fitting:
            best = min(fitting, key=lambda rule: (rule.limit != event.limit, rule.tier == ""))
            found[best] += 1 + event.left_out
    return found


def _fits(rule: Rule, event: RefusalEvent) -> bool:
    where = {ORGANISATION: event.organisation, WORKSPACE: event.workspace, KEY: event.key_id}[rule.scope]
    same = (rule.kind.value, rule.scope, rule.scope_id) == (event.rule, event.scope, where)
    return same and rule.tier in {"", event.tier}


def seen_events(events: Sequence[RefusalEvent], workspaces: Collection[str] | None) -> list[RefusalEvent]:
    """Those of the workspaces that the visitor sees; None: all."""
    return [event for event in events if workspaces is None or event.workspace in workspaces]
