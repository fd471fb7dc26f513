"""Who is billed."""

import pytest

from billing.customers import CustomerChange, customer_of, ensure_customer, time_zone_of, update_customer
from core.errors import NOT_FOUND, VALIDATION, PlatformError


@pytest.fixture
def kept(database):
    with database.unit_of_work() as session:
        ensure_customer(session, "o1", name=" First ", currency="EUR", now_ms=5, time_zone="Europe/Rome")
    return database


def test_a_customer_is_made_once(kept):
    with kept.unit_of_work() as session:
        again = ensure_customer(session, "o1", name="Other", currency="USD", now_ms=6)
        assert (again.name, again.currency, again.time_zone, again.created_ms) == ("First", "EUR", "Europe/Rome", 5)
    with kept.reading() as session:
        assert (time_zone_of(session, "o1"), time_zone_of(session, "o2")) == ("Europe/Rome", "UTC")


def test_only_what_is_named_changes(kept):
    with kept.unit_of_work() as session:
        update_customer(session, "o1", CustomerChange(address="Via 1\n00100 Roma", time_zone="Asia/Tokyo"))
    with kept.reading() as session:
        found = customer_of(session, "o1")
        assert (found.name, found.address, found.email) == ("First", "Via 1\n00100 Roma", "")
        assert time_zone_of(session, "o1") == "Asia/Tokyo"


@pytest.mark.parametrize(
    "change", [{"name": " "}, {"name": "a\nb"}, {"email": "x" * 255}, {"address": "a\0"}, {"time_zone": "Mars"}]
)
def test_what_is_wrong_changes_nothing(kept, change):
    with pytest.raises(PlatformError) as caught, kept.unit_of_work() as session:
        update_customer(session, "o1", CustomerChange(**{"address": "new", **change}))
    assert caught.value.kind is VALIDATION
    assert caught.value.param == next(iter(change))
    with kept.reading() as session:
        assert customer_of(session, "o1").address == ""


def test_nobody_is_no_customer(kept):
    with pytest.raises(PlatformError) as caught, kept.unit_of_work() as session:
        update_customer(session, "o2", CustomerChange(name="x"))
    assert caught.value.kind is NOT_FOUND
