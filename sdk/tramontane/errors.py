"""One class for each kind of failure. None of them holds a key, a header that was sent, or a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence, Tuple


class TramontaneError(Exception):
    """All errors of this package. `retryable`: the same request may succeed if it is sent again."""

    retryable = False
    retry_after_s: Optional[float] = None


class ConfigurationError(TramontaneError):
    """The client cannot begin: no key, an address that is none."""


class ConnectFailed(TramontaneError):
    """No connection: the request was not sent."""

    retryable = True


class ConnectionLost(TramontaneError):
    """The connection broke before the answer: the request may have been served."""

    retryable = True


class TimedOut(TramontaneError):
    """A time limit of this client passed. `phase`: first_token, idle or total."""

    def __init__(self, phase: str, limit_s: float, request_id: Optional[str] = None) -> None:
        super().__init__(f"{_PHASES[phase]} within {limit_s:g} s")
        self.phase = phase
        self.limit_s = limit_s
        self.request_id = request_id

    def __reduce__(self) -> Tuple[Any, ...]:
        return (TimedOut, (self.phase, self.limit_s, self.request_id))


_PHASES = {
    "first_token": "the answer did not begin",
    "idle": "nothing more of the answer came",
    "total": "the answer did not end",
}


class UnexpectedAnswer(TramontaneError):
    """The answer is not what the API promises: perhaps something else listens at the address."""


class StreamInterrupted(TramontaneError):
    """A stream ended before its end. `text` is what had come of the first choice. Such an answer is not charged if the
    platform itself failed; if the connection broke, what was delivered is.
    """

    def __init__(self, message: str, *, request_id: Optional[str] = None, text: str = "") -> None:
        super().__init__(message if request_id is None else f"{message} (request {request_id})")
        self.request_id = request_id
        self.text = text


class NotParsed(TramontaneError):
    """`parse` got an answer that is not of the wanted form; `completion` is the answer."""

    def __init__(self, message: str, completion: Any) -> None:
        super().__init__(message)
        self.completion = completion


class TooManyRounds(TramontaneError):
    """The model still called tools after the last round; `messages` is the conversation so far."""

    def __init__(self, rounds_max: int, messages: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(f"the model still called tools after {rounds_max} rounds")
        self.messages = messages


@dataclass(frozen=True)
class Refusal:
    """The rule that refused. `remaining` and `limit` are in its own unit: requests, tokens, nano-units of money."""

    rule: str
    scope: str
    limit: int
    remaining: int
    retry_after_ms: Optional[int] = None
    tier: Optional[str] = None


@dataclass(frozen=True)
class Detail:
    """One wrong field: `loc` is the way to it."""

    loc: Tuple[Any, ...]
    message: str
    type: str


@dataclass(frozen=True)
class Problem:
    """What an answer with an error status says."""

    status: int
    message: str
    code: Optional[str] = None
    type: Optional[str] = None
    param: Optional[str] = None
    request_id: Optional[str] = None
    retry_after_s: Optional[float] = None
    refusal: Optional[Refusal] = None
    details: Tuple[Detail, ...] = ()


class APIError(TramontaneError):
    """The platform answered with an error. `code` and `type` are the platform's words for the kind, `request_id` is
    what its operator can look up, `refusal` the rule that refused, if one did.
    """

    def __init__(self, problem: Problem) -> None:
        reference = "" if problem.request_id is None else f" (request {problem.request_id})"
        super().__init__(f"{problem.status}: {problem.message}{reference}")
        self.problem = problem
        self.status = problem.status
        self.message = problem.message
        self.code = problem.code
        self.type = problem.type
        self.param = problem.param
        self.request_id = problem.request_id
        self.retry_after_s = problem.retry_after_s
        self.refusal = problem.refusal

    def __reduce__(self) -> Tuple[Any, ...]:
        return (type(self), (self.problem,))


class InvalidRequest(APIError):
    """The request cannot be served as it is: 400, 405, 413, 415, 422. `details` names each wrong field."""

    @property
    def details(self) -> Tuple[Detail, ...]:
        return self.problem.details


class TooManyTokens(InvalidRequest):
    """Too many texts or tokens to embed at once (3210)."""


class AuthenticationError(APIError):
    """No key, or not a valid one: 401."""


class PaymentRequired(APIError):
    """Money is needed: 402. Never retried."""


class CreditExhausted(PaymentRequired):
    """The organisation's credit does not cover the request (1310)."""


class SpendingLimitReached(PaymentRequired):
    """A spending limit is used up (1312): it can be raised, or a new month begins."""


class PermissionDenied(APIError):
    """The key may not do this: 403."""


class NotFound(APIError):
    """It does not exist: 404."""


class Conflict(APIError):
    """The object's state does not allow it, or the name is taken: 409."""


class RequestInProgress(Conflict):
    """The first request with this Idempotency-Key still runs (1410)."""

    retryable = True


class RequestTimeout(APIError):
    """The request took too long to arrive: 408."""

    retryable = True


class RateLimited(APIError):
    """A limit of requests, tokens or concurrency is reached: 429."""

    retryable = True


class CreditReserved(RateLimited):
    """Open requests hold the credit (1311): try again when they end."""


class CapacityExceeded(APIError):
    """The model's queue is full or too slow: 429, 3505."""

    retryable = True


class ServerError(APIError):
    """A defect of the platform: 5xx. Nothing is charged."""


class EngineFailed(ServerError):
    """The platform failed on this request (500, 3600); it may succeed the next time."""

    retryable = True


class Unavailable(ServerError):
    """A part of the platform, or what stands before it, is away: 502, 503, 504."""

    retryable = True
