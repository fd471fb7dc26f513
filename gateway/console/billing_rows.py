"""How an organisation's money stands, as the page Billing shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from billing.accounts import Available, available
from billing.calendar import windows
from billing.grants import Grant, GrantKind
from billing.prices import Applying, PriceVersion
from billing.statements import list_grants
from billing.usage import UsageQuery, report
from core.meter.credit import Level
from core.queue.rules import RuleKind, RuleState, Window
from gateway.accounts.limits import SubjectKind, limits_of
from gateway.accounts.rules import RuleIds
from gateway.console.limit_forms import TITLES
from gateway.console.limit_rows import SOURCES, Applied, applied_rules, subjects_of
from gateway.console.table import Column, Row
from gateway.console.visitor import Place
from gateway.limit_states import current_window
from gateway.refusals import SPENDING

GRANTS_SHOWN_MAX = 1_000
DAY_MS = 86_400_000
TOKENS_PER_UNIT = 1_000  # prices are kept per thousand and shown per million
KINDS: Mapping[str, str] = {
    "topup": "Top-up",
    "promo": "Given",
    "plan": "With the plan",
    "correction": "Correction",
    "usage": "Usage",
    "expiry": "Expired",
}
GRANT_COLUMNS = (
    Column("created_ms", "Booked", "cell"),
    Column("kind", "Kind", "cell", lambda row: row["kind"]),
    Column("amount_nano", "Amount", "money"),
    Column("remaining_nano", "Remaining", "money"),
    Column("priority", "Priority", "number"),
    Column("expires_ms", "Last day", "cell"),
    Column("note", "Note"),
    Column("created_by", "Booked by", "cell", lambda row: row["created_by"]),
)
PRICE_COLUMNS = (
    Column("tier", "Tier", "cell", lambda row: row["tier"]),
    Column("input_nano", "Input", "money"),
    Column("cached_nano", "Cached input", "money"),
    Column("output_nano", "Output", "money"),
    Column("batch", "Batch pays", "share"),
    Column("scope", "Applies to", "cell", lambda row: row["scope"]),
    Column("since_ms", "Since", "cell"),
    Column("next_ms", "Next", "cell"),
)


@dataclass(frozen=True, slots=True)
class Cap:
    """A spending rule. `spent_nano` None: Redis does not answer."""

    title: str
    limit_nano: int
    spent_nano: int | None
    tier: str
    hard: bool
    source: str
    window: Window

    @property
    def share(self) -> float | None:
        if self.spent_nano is None:
            return None
        return self.spent_nano / self.limit_nano if self.limit_nano else 1.0


@dataclass(frozen=True, slots=True)
class Money:
    """`forecast_nano`: what the month comes to at its rate so far; None in its first day."""

    account: Available
    month: Window
    spent_nano: int
    forecast_nano: int | None
    grants: list[Grant]
    caps: list[Applied]

    @property
    def owed_nano(self) -> int:
        return max(0, -self.account.posted_nano)


def money_of(session: Session, place: Place, now_ms: int) -> Money:
    month, _ = windows(RuleKind.SPEND_PER_MONTH, place.zone, now_ms)
    query = UsageQuery(place.id, month.start_ms, month.end_ms, time_zone=place.zone)
    spent_nano = sum(line.cost_nano for line in report(session, query, count=1))
    passed_ms = now_ms - month.start_ms
    length_ms = month.end_ms - month.start_ms
    limits = limits_of(session, subjects_of(place.id, place.plan, "", ""))
    rules = applied_rules(limits, RuleIds(place.id, "", ""), place.zone, now_ms)
    return Money(
        account=available(session, place.id),
        month=month,
        spent_nano=spent_nano,
        forecast_nano=spent_nano * length_ms // passed_ms if passed_ms >= DAY_MS else None,
        grants=list_grants(session, place.id, GRANTS_SHOWN_MAX),
        caps=[each for each in rules if each.rule.kind in SPENDING],
    )


def available_nano(account: Available, level: Level | None) -> int:
    """What requests can still spend: what SQL has left, and what Redis holds free."""
    return account.available_nano + (0 if level is None else level.available_nano)


def caps_of(applied: Sequence[Applied], states: Sequence[RuleState] | None, now_ms: int) -> list[Cap]:
    spent = {} if states is None else {state.rule: state.rule.limit - state.remaining for state in states}
    return [_cap(each, spent.get(each.rule), now_ms) for each in applied]


def _cap(applied: Applied, spent_nano: int | None, now_ms: int) -> Cap:
    rule = applied.rule
    window = current_window(rule, now_ms)
    assert window is not None, "spending is counted by day or month"
    return Cap(
        title=TITLES[rule.kind],
        limit_nano=rule.limit,
        spent_nano=spent_nano,
        tier=rule.tier,
        hard=rule.hard,
        source=SOURCES[SubjectKind(applied.limits[0].subject_kind)],
        window=window,
    )


def grant_row(grant: Grant, now_ms: int) -> Row:
    expired = grant.expires_ms is not None and grant.expires_ms <= now_ms
    return {
        "created_ms": grant.created_ms,
        "kind": KINDS[GrantKind(grant.kind)],
        "amount_nano": grant.amount_nano,
        "remaining_nano": grant.remaining_nano,
        "priority": grant.priority,
        "expires_ms": grant.expires_ms,
        "note": grant.note,
        "created_by": grant.created_by,
        "state": "expired" if expired else "open" if grant.remaining_nano else "used up",
    }


def price_row(applying: Applying, place: Place) -> Row:
    """Money per million tokens."""
    current, following = applying.current, applying.following
    return {
        "tier": applying.tier,
        **_amounts(current),
        "batch": None if current is None else current.batch_percent / 100,
        "scope": "" if current is None else _scope(current, place),
        "version": "" if current is None else current.version,
        "since_ms": None if current is None else current.start_ms,
        "next_ms": None if following is None else following.start_ms,
        "next": None if following is None else {**_amounts(following), "version": following.version},
    }


def _amounts(version: PriceVersion | None) -> dict[str, int | None]:
    parts = ("input_nano", "cached_nano", "output_nano")
    return {part: None if version is None else getattr(version, part) * TOKENS_PER_UNIT for part in parts}


def _scope(version: PriceVersion, place: Place) -> str:
    if version.organisation:
        return place.name
    return f"plan {version.plan}" if version.plan else "everybody"
