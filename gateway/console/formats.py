"""Numbers and moments as people read them. Exact values go into titles, tables and exports; short ones into tiles."""

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from zoneinfo import ZoneInfo

from billing.money import show_amount
from core.catalog import NANO_PER_UNIT

THIN_SPACE = "\u202f"
MINUS = "\u2212"
MS_PER_S = 1_000
SHORT_DIGITS = 4
STEPS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
AGES = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))


def money(amount_nano: int) -> str:
    """Exact: 1234.50, 0.000000001, with thin spaces between thousands."""
    whole, _, places = show_amount(abs(amount_nano)).partition(".")
    return f"{MINUS if amount_nano < 0 else ''}{_grouped(int(whole))}.{places}"


def money_short(amount_nano: int) -> str:
    """Two places, or so many that a small amount does not look like nothing."""
    amount = Decimal(abs(amount_nano)) / NANO_PER_UNIT
    places = 2
    while places < 9 and amount and amount < Decimal(10) ** (1 - places):
        places += 1
    rounded = amount.quantize(Decimal(10) ** -places, rounding=ROUND_HALF_EVEN)
    whole, _, rest = f"{rounded:f}".partition(".")
    return f"{MINUS if amount_nano < 0 else ''}{_grouped(int(whole))}.{rest}"


def count(value: int) -> str:
    """All digits: 1 234 567."""
    return f"{MINUS if value < 0 else ''}{_grouped(abs(value))}"


def count_short(value: float) -> str:
    """At most four digits: 9 999, 12.35k, 1.204M."""
    if abs(value) < 10**SHORT_DIGITS:
        return count(round(value))
    for size, letter in STEPS:
        if abs(value) >= size:
            return f"{value / size:.{SHORT_DIGITS}g}{letter}".replace("-", MINUS)
    raise AssertionError("every number of five digits is above a thousand")


def percent(share: float) -> str:
    """Of one: 0.0123 is 1.2 %."""
    return f"{share * 100:.1f}{THIN_SPACE}%".replace("-", MINUS)


def duration(value_ms: int | None) -> str:
    """850 ms, 1.25 s, 3.5 min; a dash where nothing was measured."""
    if value_ms is None:
        return "–"  # noqa: RUF001 - an en dash, as tables have it
    if value_ms < MS_PER_S:
        return f"{value_ms}{THIN_SPACE}ms"
    for size_ms, unit in AGES:
        if value_ms >= size_ms:
            return f"{value_ms / size_ms:.3g}{THIN_SPACE}{unit}"
    raise AssertionError("a second or more has a unit")


def moment(at_ms: int | None, zone: str) -> str:
    """2026-11-22 14:05:09 in this time zone; empty for None."""
    return "" if at_ms is None else _local(at_ms, zone).strftime("%Y-%m-%d %H:%M:%S")


def day(at_ms: int | None, zone: str) -> str:
    return "" if at_ms is None else _local(at_ms, zone).strftime("%Y-%m-%d")


def iso(at_ms: int, zone: str) -> str:
    """For machines: 2026-11-22T14:05:09.123+01:00."""
    return _local(at_ms, zone).isoformat(timespec="milliseconds")


def ago(at_ms: int | None, now_ms: int) -> str:
    """3 min ago, in 2 h; "never" for None."""
    if at_ms is None:
        return "never"
    for size_ms, unit in AGES:
        passed = abs(now_ms - at_ms) // size_ms
        if passed:
            return f"{passed}{THIN_SPACE}{unit} ago" if now_ms > at_ms else f"in {passed}{THIN_SPACE}{unit}"
    return "now"


def _local(at_ms: int, zone: str) -> datetime:
    return (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=at_ms)).astimezone(ZoneInfo(zone))


def _grouped(value: int) -> str:
    return f"{value:,}".replace(",", THIN_SPACE)
