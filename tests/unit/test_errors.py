import json
import re
from pathlib import Path

import pytest

from core import errors
from core.errors import ALL_KINDS, ErrorKind, PlatformError, Refusal
from core.queue.base import Admitted
from core.queue.rules import Rule, RuleKind, RuleState
from gateway.errors import render, render_no_route
from gateway.headers import admitted_headers, limit_headers

DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"
REFUSAL = Refusal("requests_per_minute", "workspace", 60, 0, 1_001)


def rendered(error):
    answer = render(error, "id1")
    headers = dict(answer.headers)
    assert headers[b"content-type"] == b"application/json"
    assert int(headers[b"content-length"]) == len(answer.body)
    return answer.status, headers, json.loads(answer.body)


def test_the_table_of_kinds_is_complete():
    assert set(ALL_KINDS) == {value for value in vars(errors).values() if isinstance(value, ErrorKind)}


def test_the_document_shows_every_kind():
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| (?:`(\d+)`|-) \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    documented = [(int(status), name, code or None, meaning) for status, name, code, meaning in rows]
    assert documented == [(kind.status, kind.type, kind.code, kind.meaning) for kind in ALL_KINDS]


@pytest.mark.parametrize("kind", [k for k in ALL_KINDS if k not in {errors.UNAUTHORIZED, errors.VALIDATION}])
def test_the_flat_shape(kind):
    status, _, body = rendered(PlatformError(kind, "Do this.", param="model"))
    assert status == kind.status
    assert body == {
        "object": "error",
        "message": "Do this.",
        "type": kind.type,
        "param": "model",
        "code": kind.code,
        "raw_status_code": kind.status,
    }


def test_unauthorized_and_unknown_paths_in_the_gateways_shape():
    status, headers, body = rendered(PlatformError(errors.UNAUTHORIZED, "it was revoked"))
    assert (status, body) == (401, {"message": "Unauthorized", "request_id": "id1"})
    assert headers[b"www-authenticate"] == b"Bearer"
    answer = render_no_route("id1")
    assert json.loads(answer.body) == {"message": "no Route matched with those values", "request_id": "id1"}


def test_validation_wraps_its_entries():
    entries = ({"type": "missing", "loc": ["body", "model"], "msg": "Field required"},)
    status, _, body = rendered(PlatformError(errors.VALIDATION, "Wrong.", details=entries))
    assert status == 422
    assert body == {
        "object": "error",
        "message": {"detail": list(entries)},
        "type": "invalid_request_error",
        "param": None,
        "code": None,
        "detail": list(entries),
    }


def test_validation_without_entries_still_has_a_list():
    _, _, body = rendered(PlatformError(errors.VALIDATION, "Wrong.", param="messages"))
    assert body["message"]["detail"] == [{"type": "value_error", "loc": ["body", "messages"], "msg": "Wrong."}]


def test_a_refusal_names_its_rule_and_when_to_come_back():
    status, headers, body = rendered(PlatformError(errors.RATE_LIMITED, "Slow down.", refusal=REFUSAL))
    assert status == 429
    assert headers[b"retry-after"] == b"2"
    assert headers[b"x-ratelimit-limit-req-minute"] == b"60"
    assert headers[b"x-ratelimit-remaining-req-minute"] == b"0"
    assert body["x_tramontane"]["refused_by"] == {
        "rule": "requests_per_minute",
        "scope": "workspace",
        "limit": 60,
        "remaining": 0,
        "retry_after_ms": 1_001,
    }
    refusal = Refusal("tokens_per_month", "key", 9, -3, None, "small")
    _, headers, body = rendered(PlatformError(errors.RATE_LIMITED, "Wait.", refusal=refusal))
    assert body["x_tramontane"]["refused_by"]["tier"] == "small"
    assert headers[b"x-ratelimit-limit-tokens-month"] == headers[b"x-ratelimitbysize-limit-month"] == b"9"
    assert headers[b"x-ratelimit-remaining-tokens-month"] == b"0"


def test_money_is_not_cured_by_time():
    refusal = Refusal("credit", "organisation", 10, 3, None)
    _, headers, _ = rendered(PlatformError(errors.PAYMENT_REQUIRED, "Pay.", refusal=refusal))
    assert b"retry-after" not in headers


def test_a_long_message_is_cut():
    _, _, body = rendered(PlatformError(errors.INVALID_MODEL, "x" * 100_000))
    assert len(body["message"]) == 1_000


def test_limits_show_the_tightest_rule_under_both_families_of_names():
    def state(kind, limit, remaining):
        return RuleState(Rule(kind, "organisation", "o", limit), remaining, 1_500)

    headers = dict(
        limit_headers(
            [
                state(RuleKind.REQUESTS_PER_MINUTE, 100, 90),
                state(RuleKind.REQUESTS_PER_MINUTE, 60, 5),
                state(RuleKind.TOKENS_PER_MINUTE, 1_000, -40),
                state(RuleKind.CONCURRENCY, 3, 2),
                state(RuleKind.TOKENS_PER_MONTH, 5_000, 40),
            ]
        )
    )
    assert headers == {
        b"x-ratelimit-limit-req-minute": b"60",
        b"x-ratelimit-remaining-req-minute": b"5",
        b"x-ratelimit-limit-tokens-minute": b"1000",
        b"x-ratelimit-remaining-tokens-minute": b"0",
        b"ratelimitbysize-limit": b"1000",
        b"ratelimitbysize-remaining": b"0",
        b"ratelimitbysize-reset": b"2",
        b"x-ratelimitbysize-limit-minute": b"1000",
        b"x-ratelimitbysize-remaining-minute": b"0",
        b"x-ratelimit-limit-tokens-month": b"5000",
        b"x-ratelimit-remaining-tokens-month": b"40",
        b"x-ratelimitbysize-limit-month": b"5000",
        b"x-ratelimitbysize-remaining-month": b"40",
    }


def test_a_soft_limit_that_is_passed_is_named_and_the_price_too():
    soft = Rule(RuleKind.SPEND_PER_MONTH, "organisation", "o", 100, hard=False)
    at, passed = RuleState(soft, 0, 1_000), RuleState(soft, -1, 1_000)
    assert admitted_headers(Admitted("r", 1, 2, 30, (at,))) == [(b"x-tramontane-queue-ms", b"30")]
    assert admitted_headers(Admitted("r", 1, 2, 30, (passed,), price_version="2026-11")) == [
        (b"x-tramontane-soft-limit", b"spend_per_month;scope=organisation"),
        (b"x-tramontane-queue-ms", b"30"),
        (b"x-tramontane-price-version", b"2026-11"),
    ]
