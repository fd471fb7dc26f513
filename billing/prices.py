"""What tokens cost: immutable versions with a start time, for a tier, and for a plan or an organisation of its own.

At any time the most specific scope that has a started version wins: organisation, then plan, then tier. Inside a scope
it is the version that started last. Prices are nano-units of the installation's currency per 1 000 tokens.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import CheckConstraint, String, UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from core.db import Base
from core.errors import SetupError
from core.queue.base import Price

PRICE_NANO_MAX = 10**10  # 10 000 units per million tokens: with a million tokens far below 2^52
VERSION_LENGTH_MAX = 128
SKEW_MS = 600_000  # clocks of gateways and Redis differ by less
KEPT_MS = 1_800_000  # gateways keep what they read for less


class PriceVersion(Base):
    """Append-only. Empty `plan` and `organisation`: for everybody. `batch_percent`: what a batch line pays of it."""

    __tablename__ = "price_versions"
    __table_args__ = (
        UniqueConstraint("tier", "plan", "organisation", "start_ms"),
        CheckConstraint(
            " AND ".join(f"{part}_nano BETWEEN 0 AND {PRICE_NANO_MAX}" for part in ("input", "cached", "output")),
            name="bounds",
        ),
        CheckConstraint("batch_percent BETWEEN 0 AND 100", name="batch"),
        CheckConstraint("plan = '' OR organisation = ''", name="scope"),
    )

    version: Mapped[str] = mapped_column(String(VERSION_LENGTH_MAX), primary_key=True)
    tier: Mapped[str] = mapped_column(String(64))
    plan: Mapped[str] = mapped_column(String(128))
    organisation: Mapped[str] = mapped_column(String(32))
    input_nano: Mapped[int]
    cached_nano: Mapped[int]
    output_nano: Mapped[int]
    batch_percent: Mapped[int]
    start_ms: Mapped[int]
    created_ms: Mapped[int]
    note: Mapped[str] = mapped_column(String(200))


@dataclass(frozen=True, slots=True)
class PriceScope:
    """At most one of `plan` and `organisation` is set; they order the winners."""

    tier: str
    plan: str = ""
    organisation: str = ""

    @property
    def rank(self) -> int:
        return 2 if self.organisation else 1 if self.plan else 0


def scope_of(version: PriceVersion) -> PriceScope:
    return PriceScope(version.tier, version.plan, version.organisation)


def price_versions(session: Session, tiers: Sequence[str] | None = None) -> list[PriceVersion]:
    """All versions, by scope and start."""
    query = select(PriceVersion).order_by(
        PriceVersion.tier, PriceVersion.plan, PriceVersion.organisation, PriceVersion.start_ms
    )
    return list(session.scalars(query if tiers is None else query.where(PriceVersion.tier.in_(tiers))))


def price_schedules(
    session: Session, organisation: str, plan: str, tiers: Sequence[str], now_ms: int
) -> dict[str, tuple[Price, ...]]:
    """By tier and by start, what this organisation pays: the version in force at now_ms and the one that follows it.
    Also the one before if it was in force within SKEW_MS, and all that start within KEPT_MS: Redis picks by its own
    clock, out of what a gateway may have read a while ago. A tier without a version in force is left out: nobody may
    use it.
    """
    query = select(PriceVersion).where(
        PriceVersion.tier.in_(tiers),
        PriceVersion.plan.in_(("", plan)),
        PriceVersion.organisation.in_(("", organisation)),
    )
    by_tier: defaultdict[str, list[PriceVersion]] = defaultdict(list)
    for version in session.scalars(query):
        by_tier[version.tier].append(version)
    schedules = {tier: _schedule(versions, now_ms) for tier, versions in by_tier.items()}
    return {tier: schedule for tier, schedule in schedules.items() if schedule}


def unpriced(session: Session, tiers: Iterable[str], now_ms: int) -> tuple[str, ...]:
    """The tiers without a version for everybody in force."""
    priced = set(
        session.scalars(
            select(PriceVersion.tier).where(
                PriceVersion.plan == "", PriceVersion.organisation == "", PriceVersion.start_ms <= now_ms
            )
        )
    )
    return tuple(tier for tier in tiers if tier not in priced)


def ensure_priced(session: Session, tiers: Iterable[str], now_ms: int) -> None:
    """Raises SetupError for a tier that has no price in force: it would be given away."""
    missing = unpriced(session, tiers, now_ms)
    if missing:
        raise SetupError(f"The tier {missing[0]} has no price in force: `tramontane prices apply FILE` gives it one.")


def in_force(session: Session, scope: PriceScope, at_ms: int) -> PriceVersion | None:
    """The last version of exactly this scope that has started by at_ms."""
    query = (
        select(PriceVersion)
        .where(
            PriceVersion.tier == scope.tier,
            PriceVersion.plan == scope.plan,
            PriceVersion.organisation == scope.organisation,
            PriceVersion.start_ms <= at_ms,
        )
        .order_by(PriceVersion.start_ms.desc())
        .limit(1)
    )
    return session.scalars(query).first()


def _schedule(versions: Sequence[PriceVersion], now_ms: int) -> tuple[Price, ...]:
    if _winner(versions, now_ms) is None:
        return ()
    first_ms = now_ms - SKEW_MS
    winners = [_winner(versions, first_ms)]
    for start_ms in sorted({version.start_ms for version in versions if version.start_ms > first_ms}):
        following = _winner(versions, start_ms)
        if following is not winners[-1]:
            winners.append(following)
            if start_ms > now_ms + KEPT_MS:
                break
    return tuple(_price(winner) for winner in winners if winner is not None)


def _winner(versions: Sequence[PriceVersion], at_ms: int) -> PriceVersion | None:
    started = (version for version in versions if version.start_ms <= at_ms)
    return max(started, key=lambda version: (scope_of(version).rank, version.start_ms), default=None)


def _price(version: PriceVersion) -> Price:
    return Price(
        version=version.version,
        input_nano=version.input_nano,
        cached_nano=version.cached_nano,
        output_nano=version.output_nano,
        start_ms=version.start_ms,
    )


@dataclass(frozen=True, slots=True)
class Applying:
    """What an organisation pays on one tier; `following` is what it will pay next, None as long as nobody knows."""

    tier: str
    current: PriceVersion | None
    following: PriceVersion | None


def applying_prices(
    session: Session, organisation: str, plan: str, tiers: Sequence[str], now_ms: int
) -> tuple[Applying, ...]:
    """For each of the tiers, in their order, by the rules of `price_schedules`."""
    query = select(PriceVersion).where(
        PriceVersion.tier.in_(tiers),
        PriceVersion.plan.in_(("", plan)),
        PriceVersion.organisation.in_(("", organisation)),
    )
    by_tier: defaultdict[str, list[PriceVersion]] = defaultdict(list)
    for version in session.scalars(query):
        by_tier[version.tier].append(version)
    return tuple(_applying(tier, by_tier[tier], now_ms) for tier in tiers)


def _applying(tier: str, versions: Sequence[PriceVersion], now_ms: int) -> Applying:
    current = _winner(versions, now_ms)
    coming = sorted({version.start_ms for version in versions if version.start_ms > now_ms})
    winners = (_winner(versions, start_ms) for start_ms in coming)
    return Applying(tier, current, next((winner for winner in winners if winner is not current), None))
