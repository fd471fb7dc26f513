import pytest

from tramontane import errors
from tramontane.errors import Problem, TimedOut
from tramontane.wire.config import Retries, Timeouts
from tramontane.wire.tries import Limits, Tries

TIMEOUTS = Timeouts(connect_s=5, first_token_s=20, idle_s=10, total_s=100)
RETRIES = Retries(tries_max=4, backoff_s=1, backoff_s_max=3, retry_after_s_max=30)


def tries(*, repeatable=True, made=1):
    found = Tries(TIMEOUTS, RETRIES, 0.0, repeatable=repeatable)
    for _ in range(made):
        found.begin(0.0)
    return found


def refusal(kind, status, retry_after_s=None):
    return kind(Problem(status, "no", retry_after_s=retry_after_s))


UNAVAILABLE = refusal(errors.Unavailable, 503)


def test_the_spread_doubles_up_to_its_bound():
    assert [tries(made=made).wait_s(UNAVAILABLE, 0.0, 1.0) for made in (1, 2, 3, 4)] == [1.0, 2.0, 3.0, None]
    assert tries().wait_s(UNAVAILABLE, 0.0, 0.0) == 0.0
    assert tries(made=2).wait_s(UNAVAILABLE, 0.0, 0.25) == 0.5


def test_what_is_demanded_is_waited_for_and_spread():
    limited = refusal(errors.RateLimited, 429, 12.0)
    assert tries().wait_s(limited, 0.0, 0.5) == 12.5
    assert tries().wait_s(refusal(errors.RateLimited, 429, 31.0), 0.0, 0.0) is None
    assert tries().wait_s(limited, 88.5, 0.0) is None  # it would end after everything must have ended


@pytest.mark.parametrize(
    "failure",
    [
        refusal(errors.CreditExhausted, 402),
        refusal(errors.PaymentRequired, 402, 1.0),
        refusal(errors.InvalidRequest, 400),
        refusal(errors.ServerError, 500),
        TimedOut("total", 1.0),
        errors.UnexpectedAnswer("odd"),
    ],
)
def test_some_failures_are_final(failure):
    assert tries().wait_s(failure, 0.0, 0.0) is None


@pytest.mark.parametrize(
    ("failure", "again"),
    [
        (errors.ConnectFailed("refused"), True),
        (refusal(errors.RateLimited, 429), True),
        (refusal(errors.CapacityExceeded, 429), True),
        (refusal(errors.RequestTimeout, 408), True),
        (errors.ConnectionLost("gone"), False),
        (UNAVAILABLE, False),
    ],
)
def test_what_must_not_happen_twice_is_repeated_only_if_it_never_happened(failure, again):
    assert (tries(repeatable=False).wait_s(failure, 0.0, 0.0) is not None) is again
    assert tries(repeatable=True).wait_s(failure, 0.0, 0.0) is not None


def test_time_limits_shrink_with_what_is_left():
    plain, streamed = tries(made=0), tries(made=0)
    assert plain.begin(1.0) == Limits(5, 99)
    assert plain.silence_s(50.0) == 50
    assert streamed.begin(1.0, streams=True) == Limits(5, 20)
    assert streamed.silence_s(1.0) == 10
    assert streamed.begin(98.0, streams=True) == Limits(2, 2)
    assert streamed.silence_s(98.0) == 2
    with pytest.raises(TimedOut) as caught:
        plain.begin(100.0)
    assert caught.value.phase == "total"


def test_each_silence_has_its_name():
    plain, streamed = tries(), tries(made=0)
    streamed.begin(0.0, streams=True)
    assert [plain.no_answer().phase, plain.no_more().phase] == ["total", "total"]
    assert [streamed.no_answer().phase, streamed.no_more().phase] == ["first_token", "idle"]
