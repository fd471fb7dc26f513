import json
import pickle
from email.utils import formatdate

import pytest

from tramontane import errors
from tramontane.errors import Refusal, StreamInterrupted, TimedOut
from tramontane.wire.failures import failure_of

NOW_S = 1_800_000_000.0
REFUSED_BY = {"rule": "requests_per_minute", "scope": "workspace", "limit": 60, "remaining": 0, "retry_after_ms": 1500}


def flat(code=None, message="No.", **more):
    return {"object": "error", "message": message, "type": "t", "param": "p", "code": code, **more}


def fail(status, body=b"", **headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return failure_of(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw, NOW_S)


@pytest.mark.parametrize(
    ("status", "code", "kind", "retryable"),
    [
        (400, "1500", errors.InvalidRequest, False),
        (400, "3210", errors.TooManyTokens, False),
        (401, None, errors.AuthenticationError, False),
        (402, "1310", errors.CreditExhausted, False),
        (402, "1312", errors.SpendingLimitReached, False),
        (402, "9999", errors.PaymentRequired, False),
        (402, "1311", errors.PaymentRequired, False),
        (403, "1910", errors.PermissionDenied, False),
        (404, None, errors.NotFound, False),
        (405, None, errors.InvalidRequest, False),
        (408, None, errors.RequestTimeout, True),
        (409, None, errors.Conflict, False),
        (409, "1410", errors.RequestInProgress, True),
        (409, "1411", errors.Conflict, False),
        (413, None, errors.InvalidRequest, False),
        (422, None, errors.InvalidRequest, False),
        (429, "1300", errors.RateLimited, True),
        (429, "1311", errors.CreditReserved, True),
        (429, "1320", errors.RateLimited, True),
        (429, "3505", errors.CapacityExceeded, True),
        (500, "3600", errors.EngineFailed, True),
        (500, None, errors.ServerError, False),
        (502, None, errors.Unavailable, True),
        (503, "1100", errors.Unavailable, True),
        (503, "1310", errors.Unavailable, True),
        (504, None, errors.Unavailable, True),
        (302, None, errors.InvalidRequest, False),
    ],
)
def test_each_status_and_code_has_its_class(status, code, kind, retryable):
    failure = fail(status, flat(code))
    assert type(failure) is kind
    assert failure.retryable is retryable
    assert (failure.status, failure.code, failure.type, failure.param) == (status, code, "t", "p")


def test_the_rule_that_refused_and_when_to_come_back():
    body = flat("1300", x_tramontane={"refused_by": {**REFUSED_BY, "tier": "small"}})
    failure = fail(429, body, retry_after="2", mistral_correlation_id="r1")
    assert failure.refusal == Refusal("requests_per_minute", "workspace", 60, 0, 1500, "small")
    assert failure.retry_after_s == 1.5  # more exact than whole seconds
    assert failure.request_id == "r1"
    assert str(failure) == "429: No. (request r1)"


def test_a_spent_cap_names_no_time():
    failure = fail(402, flat("1312", x_tramontane={"refused_by": REFUSED_BY}))
    assert failure.retry_after_s is None
    assert failure.refusal.rule == "requests_per_minute"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry_after": "3"}, 3.0),
        ({"retry_after": " 2.5 "}, 2.5),
        ({"retry_after": "3", "retry_after_ms": "250"}, 0.25),
        ({"retry_after": formatdate(NOW_S + 7, usegmt=True)}, 7.0),
        ({"retry_after": formatdate(NOW_S - 7, usegmt=True)}, 0.0),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "-1"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "9" * 20}, None),
        ({}, None),
    ],
)
def test_retry_after(headers, expected):
    assert fail(503, flat(), **headers).retry_after_s == expected


@pytest.mark.parametrize("wrapped", [True, False])
def test_wrong_fields_are_named(wrapped):
    detail = [
        {"type": "extra_forbidden", "loc": ["body", "messages", 0, "user", "name"], "msg": "Not permitted"},
        {"type": "json_invalid", "loc": "odd", "msg": "No JSON"},
        "odd",
    ]
    failure = fail(422, {"message": {"detail": detail}} if wrapped else {"detail": detail})
    assert failure.message == "messages.0.user.name: Not permitted; No JSON"
    assert failure.details[0].loc == ("body", "messages", 0, "user", "name")
    assert failure.details[0].type == "extra_forbidden"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"message": "Unauthorized", "request_id": "k"}, "Unauthorized"),
        ({"detail": "Unauthorized"}, "Unauthorized"),
        (b"<html>\n<h1>Bad   gateway</h1>", "<html> <h1>Bad gateway</h1>"),
        (b"", "status 401 without a word"),
        (b"[1]", "[1]"),
        ({"message": {"detail": []}}, '{"message": {"detail": []}}'),
        ({"message": "x" * 5_000}, "x" * 1_000),
    ],
)
def test_the_sentence(body, message):
    assert fail(401, body).message == message


def test_the_id_comes_from_the_body_if_no_header_has_it():
    assert fail(401, {"message": "U", "request_id": "k"}).request_id == "k"
    assert fail(401, {"message": "U"}).request_id is None


def test_odd_extensions_are_no_refusal():
    for odd in (7, {}, {"refused_by": 7}):
        assert fail(429, flat("1300", x_tramontane=odd)).refusal is None
    odd = fail(429, flat("1300", x_tramontane={"refused_by": {"limit": True, "remaining": "x"}})).refusal
    assert odd == Refusal("", "", 0, 0)


@pytest.mark.parametrize(
    "failure", [fail(429, flat("1300"), retry_after="2"), TimedOut("idle", 2.0, "r"), StreamInterrupted("cut")]
)
def test_failures_travel_between_processes(failure):
    again = pickle.loads(pickle.dumps(failure))
    assert type(again) is type(failure)
    assert str(again) == str(failure)
    assert again.__dict__ == failure.__dict__


def test_a_time_limit_says_which():
    assert str(TimedOut("first_token", 0.5)) == "the answer did not begin within 0.5 s"
