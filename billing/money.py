"""Money at the edges: decimal strings outside, integer nano-units of the installation's currency inside."""

import re

from core.catalog import MILLION, NANO_PER_UNIT, TOKENS_PER_PRICE
from core.errors import VALIDATION, PlatformError

AMOUNT_NANO_MAX = 2**52  # Lua's numbers are exact up to twice as much
_DIGITS = 9
_AMOUNT = re.compile(r"(-?)([0-9]{1,7})(?:\.([0-9]{1,9}))?")


def parse_amount(text: str, *, param: str = "amount", signed: bool = False) -> int:
    """Nano-units of "12.50". Raises PlatformError (VALIDATION) for anything that is not an exact decimal number."""
    found = _AMOUNT.fullmatch(text)
    if found is None or (found[1] and not signed):
        raise PlatformError(VALIDATION, f'{param} is a decimal string such as "12.50".', param=param)
    nano = int(found[2]) * NANO_PER_UNIT + int((found[3] or "").ljust(_DIGITS, "0"))
    return -check_amount(nano, param=param) if found[1] else check_amount(nano, param=param)


def check_amount(amount_nano: int, *, param: str = "amount") -> int:
    """The amount again; raises PlatformError (VALIDATION) below 0 or above AMOUNT_NANO_MAX."""
    if not 0 <= amount_nano <= AMOUNT_NANO_MAX:
        raise PlatformError(VALIDATION, f"{param} is at least 0, at most {show_amount(AMOUNT_NANO_MAX)}.", param=param)
    return amount_nano


def show_amount(amount_nano: int) -> str:
    """Exact, with at least two decimal places: "12.50", "0.000000001"."""
    whole, rest = divmod(abs(amount_nano), NANO_PER_UNIT)
    places = f"{rest:0{_DIGITS}d}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount_nano < 0 else ''}{whole}.{places}"


def show_price(nano_per_thousand: int) -> str:
    """Currency units per million tokens."""
    return show_amount(nano_per_thousand * (MILLION // TOKENS_PER_PRICE))
