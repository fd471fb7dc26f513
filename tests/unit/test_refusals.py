import pytest

from core import errors
from core.errors import Refusal
from core.queue.base import Refused, RefusedBy
from gateway.refusals import refusal_error


@pytest.mark.parametrize(
    ("by", "retry_after_ms", "kind", "after_s"),
    [
        (RefusedBy.RULE, 1_001, errors.RATE_LIMITED, 2),
        (RefusedBy.CREDIT, None, errors.PAYMENT_REQUIRED, None),
        (RefusedBy.QUEUE_FULL, 1_000, errors.CAPACITY, 1),
        (RefusedBy.QUEUE_SLOW, 90_000, errors.CAPACITY, 90),
        (RefusedBy.BACKLOG, 0, errors.UNAVAILABLE, 1),
        (RefusedBy.STALE, None, errors.UNAVAILABLE, 1),
        (RefusedBy.EPOCH, None, errors.UNAVAILABLE, 1),
        (RefusedBy.UNSEEDED, None, errors.UNAVAILABLE, 1),
    ],
)
def test_each_refusal_has_its_status_and_its_time(by, retry_after_ms, kind, after_s):
    error = refusal_error(Refused(by, Refusal("requests_per_minute", "key", 60, 3, retry_after_ms)))
    assert (error.kind, error.retry_after_s) == (kind, after_s)
    assert error.refusal.rule == "requests_per_minute"


def test_a_broken_limit_names_rule_scope_value_remaining_and_time():
    error = refusal_error(Refused(RefusedBy.RULE, Refusal("tokens_per_minute", "workspace", 600, 12, 4_000)))
    assert error.message.startswith("Rate limit exceeded.")
    for word in ("tokens_per_minute", "workspace", "600", "12", "4 s"):
        assert word in error.message


def test_a_limit_of_one_tier_names_it():
    refusal = Refusal("concurrency", "organisation", 5, 0, 1_000, "mistral-tiny")
    assert (
        "concurrency (organisation, mistral-tiny): limit 5" in refusal_error(Refused(RefusedBy.RULE, refusal)).message
    )


def test_a_spending_limit_is_money_and_names_no_time():
    error = refusal_error(Refused(RefusedBy.RULE, Refusal("spend_per_day", "key", 5, 0, 60_000)))
    assert (error.kind, error.message[:23]) == (errors.SPENDING_LIMIT, "Spending limit reached.")
    assert error.retry_after_s is None


def test_used_up_credit_names_balance_reserved_and_needed():
    refused = Refused(RefusedBy.CREDIT, Refusal("credit", "organisation", 500, 100, None), reserved_nano=70)
    error = refusal_error(refused, 170)
    assert error.kind is errors.PAYMENT_REQUIRED
    assert "needs 500 nano-units, the balance is 170, of which open requests reserve 70" in error.message


def test_credit_that_open_requests_hold_is_a_matter_of_time():
    refused = Refused(RefusedBy.CREDIT, Refusal("credit", "organisation", 500, 100, None), reserved_nano=900)
    error = refusal_error(refused, 1_000)
    assert (error.kind, error.retry_after_s) == (errors.CREDIT_RESERVED, 1)
