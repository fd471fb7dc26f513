"""Lists of prices as an operator writes them, compared with what is in force, and made into new versions."""

import re
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.prices import VERSION_LENGTH_MAX, PriceScope, PriceVersion, in_force
from core.catalog import Catalog, LaunchPrice, read_catalog
from core.clock import Clock
from core.db import insert_new
from core.errors import CONFLICT, VALIDATION, PlatformError, SetupError

LAUNCH = "launch"
BATCH_PERCENT = 50
LEAD_MS = 60_000  # every gateway knows a new version before it starts
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,23}")


@dataclass(frozen=True, slots=True)
class PriceEntry:
    """Nano-units per 1 000 tokens for one scope."""

    scope: PriceScope
    input_nano: int
    cached_nano: int
    output_nano: int
    batch_percent: int = BATCH_PERCENT


@dataclass(frozen=True, slots=True)
class PriceChange:
    """`before` None: the scope has no version yet."""

    before: PriceEntry | None
    after: PriceEntry


@dataclass(frozen=True, slots=True)
class PriceFile:
    """What a file says; `name` of its versions, for a tramontane.toml the day. `start_ms` None: as soon as may be."""

    name: str
    entries: tuple[PriceEntry, ...]
    start_ms: int | None = None
    note: str = ""


class _Line(LaunchPrice):
    tier: str = Field(min_length=1, max_length=64)
    plan: str = Field(default="", max_length=128)
    organisation: str = Field(default="", max_length=32)
    batch_percent: int = Field(default=BATCH_PERCENT, ge=0, le=100)

    @model_validator(mode="after")
    def _one_scope(self) -> "_Line":
        if self.plan and self.organisation:
            raise ValueError("a price is for a plan or for an organisation, not for both")
        return self


class PriceList(BaseModel):
    """The file of `tramontane prices apply`: a name for its versions, when they start, one table for each price."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(pattern=f"^{_NAME.pattern}$", description="Such as 2026-11.")
    start: datetime | None = Field(default=None, description="With its zone; absent: a minute from now.")
    note: str = Field(default="", max_length=200)
    prices: tuple[_Line, ...] = Field(max_length=10_000)

    @model_validator(mode="after")
    def _start_has_a_zone(self) -> "PriceList":
        if self.start is not None and self.start.tzinfo is None:
            raise ValueError("start names its zone, such as 2026-11-01T00:00:00Z")
        return self

    @property
    def start_ms(self) -> int | None:
        return None if self.start is None else round(self.start.astimezone(UTC).timestamp() * 1000)

    def entries(self) -> tuple[PriceEntry, ...]:
        return tuple(
            PriceEntry(
                PriceScope(line.tier, line.plan, line.organisation), *line.nano_per_thousand(), line.batch_percent
            )
            for line in self.prices
        )


def read_price_file(path: Path, now_ms: int) -> PriceFile:
    """A price list, or the tiers of a tramontane.toml. Raises SetupError with one sentence that names the place."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        if "tiers" in raw:
            today = datetime.fromtimestamp(now_ms / 1000, UTC).date().isoformat()
            return PriceFile(today, catalog_entries(read_catalog(path)))
        found = parse_price_list(raw)
        return PriceFile(found.version, found.entries(), found.start_ms, found.note)
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} is not valid TOML: {error}.") from error
    except PlatformError as error:
        raise SetupError(f"{path}: {error.message}") from error


def parse_price_list(raw: dict[str, Any]) -> PriceList:
    """Raises PlatformError (VALIDATION)."""
    try:
        return PriceList.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the list"
        raise PlatformError(VALIDATION, f"{place}: {first['msg']}.", param=place) from error


def catalog_entries(catalog: Catalog) -> tuple[PriceEntry, ...]:
    return tuple(PriceEntry(PriceScope(tier.name), *tier.price.nano_per_thousand()) for tier in catalog.tiers)


def seed_prices(session: Session, catalog: Catalog, clock: Clock) -> None:
    """The catalogue's prices, in force at once, if there are none at all yet. Twice does no harm."""
    if session.scalars(select(PriceVersion.version).limit(1)).first() is None:
        now_ms = clock.now_ms()
        rows = [_row(entry, LAUNCH, start_ms=0, now_ms=now_ms, note="") for entry in catalog_entries(catalog)]
        insert_new(session, PriceVersion, rows, ["version"])


def differs(session: Session, entries: Sequence[PriceEntry], at_ms: int) -> tuple[PriceChange, ...]:
    """The entries that are not what their scope has in force at that time."""
    found = (PriceChange(entry_of(in_force(session, entry.scope, at_ms)), entry) for entry in entries)
    return tuple(change for change in found if change.before != change.after)


def apply_prices(
    session: Session,
    entries: Sequence[PriceEntry],
    *,
    name: str,
    now_ms: int,
    tiers: Collection[str],
    start_ms: int | None = None,
    note: str = "",
) -> tuple[PriceChange, ...]:
    """Write a version for each entry that differs at its start; the same list twice writes nothing. A scope's first
    version for a tier that nobody could use yet starts at once, any other at least LEAD_MS ahead. The caller raises
    the generation of the organisations concerned, so that gateways load it.

    Raises PlatformError: VALIDATION (an unknown tier, a start too early, a name too long), CONFLICT (name taken).
    """
    if _NAME.fullmatch(name) is None:
        raise PlatformError(VALIDATION, "A version has 1 to 24 letters, digits, dots or dashes.", param="version")
    if start_ms is not None and start_ms < now_ms:
        raise PlatformError(VALIDATION, "Prices do not start in the past.", param="start")
    changes: list[PriceChange] = []
    for entry in entries:
        if entry.scope.tier not in tiers:
            raise PlatformError(VALIDATION, f"There is no tier {entry.scope.tier}.", param="tier")
        starts_ms = _start_ms(session, entry.scope, start_ms, now_ms)
        change = differs(session, [entry], starts_ms)
        if change:
            _insert(session, _row(entry, name, start_ms=starts_ms, now_ms=now_ms, note=note))
        changes += change
    return tuple(changes)


def _start_ms(session: Session, scope: PriceScope, start_ms: int | None, now_ms: int) -> int:
    if in_force(session, PriceScope(scope.tier), now_ms) is None:
        return now_ms if start_ms is None else start_ms
    if start_ms is not None and start_ms < now_ms + LEAD_MS:
        raise PlatformError(VALIDATION, f"Prices start at least {LEAD_MS // 1000} s from now.", param="start")
    return now_ms + LEAD_MS if start_ms is None else start_ms


def _insert(session: Session, row: dict[str, str | int]) -> None:
    """Two versions of one name, or of one scope and start, cannot be: the second would never be told from the first."""
    taken = session.scalars(
        select(PriceVersion.version).where(
            (PriceVersion.version == row["version"])
            | (
                (PriceVersion.tier == row["tier"])
                & (PriceVersion.plan == row["plan"])
                & (PriceVersion.organisation == row["organisation"])
                & (PriceVersion.start_ms == row["start_ms"])
            )
        )
    ).first()
    if taken is not None:
        raise PlatformError(CONFLICT, f"The price version {taken} is there already: name or start it otherwise.")
    session.add(PriceVersion(**row))
    session.flush()


def _row(entry: PriceEntry, name: str, *, start_ms: int, now_ms: int, note: str) -> dict[str, str | int]:
    scope = entry.scope
    own = f":plan={scope.plan}" if scope.plan else f":org={scope.organisation}" if scope.organisation else ""
    version = f"{name}:{scope.tier}{own}"
    if len(version) > VERSION_LENGTH_MAX:
        raise PlatformError(VALIDATION, f"{version} is longer than {VERSION_LENGTH_MAX} characters.", param="version")
    return {
        "version": version,
        "tier": scope.tier,
        "plan": scope.plan,
        "organisation": scope.organisation,
        "input_nano": entry.input_nano,
        "cached_nano": entry.cached_nano,
        "output_nano": entry.output_nano,
        "batch_percent": entry.batch_percent,
        "start_ms": start_ms,
        "created_ms": now_ms,
        "note": note,
    }


def entry_of(version: PriceVersion | None) -> PriceEntry | None:
    if version is None:
        return None
    scope = PriceScope(version.tier, version.plan, version.organisation)
    return PriceEntry(scope, version.input_nano, version.cached_nano, version.output_nano, version.batch_percent)
