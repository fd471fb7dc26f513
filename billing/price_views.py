"""Versions of prices as operators look at them: which are in force, what a list would change."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.price_lists import PriceEntry, entry_of
from billing.prices import PriceVersion, scope_of


class PriceState(StrEnum):
    SCHEDULED = "scheduled"
    IN_FORCE = "in force"
    PAST = "past"


class ScopeKind(StrEnum):
    EVERYBODY = "everybody"
    PLAN = "plan"
    ORGANISATION = "organisation"


@dataclass(frozen=True, slots=True)
class PriceStanding:
    """`replaced_ms`: when a version of the same scope followed it or will; None: none does."""

    version: PriceVersion
    state: PriceState
    replaced_ms: int | None


@dataclass(frozen=True, slots=True)
class PricePreview:
    """`before` is what the scope pays at that time without the list, of its own or of a wider one; None: nothing, the
    tier cannot be used. `changes`: the list writes a version.
    """

    before: PriceEntry | None
    after: PriceEntry
    changes: bool


def price_standings(
    session: Session, now_ms: int, count: int, *, kind: ScopeKind | None = None, past: bool = False
) -> list[PriceStanding]:
    """By tier and scope, the last to start first. `past`: with those that were replaced."""
    query = select(PriceVersion).order_by(
        PriceVersion.tier, PriceVersion.plan, PriceVersion.organisation, PriceVersion.start_ms.desc()
    )
    if kind is ScopeKind.EVERYBODY:
        query = query.where(PriceVersion.plan == "", PriceVersion.organisation == "")
    elif kind is ScopeKind.PLAN:
        query = query.where(PriceVersion.plan != "")
    elif kind is ScopeKind.ORGANISATION:
        query = query.where(PriceVersion.organisation != "")
    found: list[PriceStanding] = []
    following: PriceVersion | None = None
    for version in session.scalars(query.limit(count)):
        replaced_ms = None
        if following is not None and scope_of(following) == scope_of(version):
            replaced_ms = following.start_ms
        found.append(PriceStanding(version, _state(version, replaced_ms, now_ms), replaced_ms))
        following = version
    return [each for each in found if past or each.state is not PriceState.PAST]


def preview_prices(
    session: Session, entries: Sequence[PriceEntry], at_ms: int, *, plan: str = "", organisation: str = ""
) -> list[PricePreview]:
    """All entries are of one scope: everybody, this plan, or this organisation, whose plan it then is."""
    query = select(PriceVersion).where(
        PriceVersion.tier.in_([entry.scope.tier for entry in entries]),
        PriceVersion.plan.in_(("", plan)),
        PriceVersion.organisation.in_(("", organisation)),
        PriceVersion.start_ms <= at_ms,
    )
    started = list(session.scalars(query))
    return [_preview(entry, [each for each in started if each.tier == entry.scope.tier]) for entry in entries]


def _preview(entry: PriceEntry, started: Sequence[PriceVersion]) -> PricePreview:
    wider = [each for each in started if scope_of(each).rank <= entry.scope.rank]
    paid = max(wider, key=lambda version: (scope_of(version).rank, version.start_ms), default=None)
    own = max((each for each in wider if scope_of(each) == entry.scope), key=lambda each: each.start_ms, default=None)
    return PricePreview(entry_of(paid), entry, entry_of(own) != entry)


def _state(version: PriceVersion, replaced_ms: int | None, now_ms: int) -> PriceState:
    if version.start_ms > now_ms:
        return PriceState.SCHEDULED
    return PriceState.IN_FORCE if replaced_ms is None or replaced_ms > now_ms else PriceState.PAST
