"""Decimal strings in, integers inside, decimal strings out: exact both ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.money import AMOUNT_NANO_MAX, parse_amount, show_amount, show_price
from core.errors import VALIDATION, PlatformError


@given(st.integers(-AMOUNT_NANO_MAX, AMOUNT_NANO_MAX))
def test_there_and_back(nano):
    assert parse_amount(show_amount(nano), signed=True) == nano


@pytest.mark.parametrize(
    ("text", "nano"), [("1", 10**9), ("1.00", 10**9), ("0.000000001", 1), ("4000000", 4 * 10**15), ("0", 0)]
)
def test_amounts(text, nano):
    assert parse_amount(text) == nano


@pytest.mark.parametrize(
    "text", ["", "-1", "1e3", "NaN", "inf", "1.0000000001", ".5", "5.", "4503600", "1,5", "1\n", " 1"]
)
def test_what_is_no_amount(text):
    with pytest.raises(PlatformError) as caught:
        parse_amount(text)
    assert caught.value.kind is VALIDATION


def test_shown():
    assert show_amount(12_500_000_000) == "12.50"
    assert show_amount(-1) == "-0.000000001"
    assert show_price(140_000) == "0.14"
