"""Response headers: both of Mistral's rate-limit families, and what a request cost and waited."""

from collections.abc import Sequence

from core.errors import Refusal
from core.queue.base import Admitted
from core.queue.rules import RuleKind, RuleState

RawHeaders = list[tuple[bytes, bytes]]

JSON_TYPE = b"application/json"
EVENT_STREAM_TYPE = b"text/event-stream; charset=utf-8"
REQUEST_ID = b"mistral-correlation-id"
REQUEST_ID_KONG = b"x-kong-request-id"
REPLAYED = (b"idempotent-replayed", b"true")

_REQUESTS = RuleKind.REQUESTS_PER_MINUTE
_TOKENS = RuleKind.TOKENS_PER_MINUTE
_MONTH = RuleKind.TOKENS_PER_MONTH


def request_id_headers(request_id: str) -> RawHeaders:
    raw = request_id.encode("ascii")
    return [(REQUEST_ID, raw), (REQUEST_ID_KONG, raw)]


def limit_headers(rules: Sequence[RuleState]) -> RawHeaders:
    """The tightest rule of each kind, under today's names and those of 2024; and each soft limit that is passed."""
    requests = tokens = month = None
    headers: RawHeaders = []
    for state in rules:
        kind = state.rule.kind
        if kind == _REQUESTS:
            requests = _tighter(requests, state)
        elif kind == _TOKENS:
            tokens = _tighter(tokens, state)
        elif kind == _MONTH:
            month = _tighter(month, state)
        if state.remaining < 0 and not state.rule.hard:
            headers.append((b"x-tramontane-soft-limit", f"{kind};scope={state.rule.scope}".encode("ascii")))
    if requests is not None:
        headers += _request_pair(requests.rule.limit, requests.remaining)
    if tokens is not None:
        headers += _token_pairs(tokens.rule.limit, tokens.remaining)
        headers.append((b"ratelimitbysize-reset", b"%d" % -(-tokens.reset_ms // 1_000)))
    if month is not None:
        headers += _month_pairs(month.rule.limit, month.remaining)
    return headers


def admitted_headers(admitted: Admitted) -> RawHeaders:
    """What admission knows: limits, the queue's own guess, and the price that was pinned."""
    headers = limit_headers(admitted.rules)
    headers.append((b"x-tramontane-queue-ms", b"%d" % admitted.queue_wait_ms))
    if admitted.price_version:
        headers.append((b"x-tramontane-price-version", admitted.price_version.encode("ascii", "replace")))
    return headers


def ignored_header(names: Sequence[str]) -> tuple[bytes, bytes]:
    """Fields that were accepted and do nothing; their names are safe in a header."""
    return (b"x-tramontane-ignored", ",".join(names).encode("ascii"))


def query_cost_headers(total_tokens: int) -> RawHeaders:
    """Known only once the answer is complete, so never on a stream."""
    raw = b"%d" % total_tokens
    return [(b"x-ratelimit-tokens-query-cost", raw), (b"ratelimitbysize-query-cost", raw)]


def cost_header(cost_nano: int) -> tuple[bytes, bytes]:
    return (b"x-tramontane-cost-nano", b"%d" % cost_nano)


def overhead_header(seconds: float) -> tuple[bytes, bytes]:
    """What the gateway itself took, without the wait for the answer; with microseconds."""
    return (b"x-tramontane-overhead-ms", b"%.3f" % (seconds * 1_000))


def refusal_headers(refusal: Refusal) -> RawHeaders:
    """The pair of the rule that refused; the others are not known then."""
    if refusal.rule == _REQUESTS:
        return _request_pair(refusal.limit, refusal.remaining)
    if refusal.rule == _TOKENS:
        return _token_pairs(refusal.limit, refusal.remaining)
    if refusal.rule == _MONTH:
        return _month_pairs(refusal.limit, refusal.remaining)
    return []


def _tighter(one: RuleState | None, other: RuleState) -> RuleState:
    return other if one is None or other.remaining < one.remaining else one


def _request_pair(limit: int, remaining: int) -> RawHeaders:
    return [
        (b"x-ratelimit-limit-req-minute", b"%d" % limit),
        (b"x-ratelimit-remaining-req-minute", b"%d" % max(0, remaining)),
    ]


def _token_pairs(limit: int, remaining: int) -> RawHeaders:
    limit_raw, remaining_raw = b"%d" % limit, b"%d" % max(0, remaining)
    return [
        (b"x-ratelimit-limit-tokens-minute", limit_raw),
        (b"x-ratelimit-remaining-tokens-minute", remaining_raw),
        (b"ratelimitbysize-limit", limit_raw),
        (b"ratelimitbysize-remaining", remaining_raw),
        (b"x-ratelimitbysize-limit-minute", limit_raw),
        (b"x-ratelimitbysize-remaining-minute", remaining_raw),
    ]


def _month_pairs(limit: int, remaining: int) -> RawHeaders:
    limit_raw, remaining_raw = b"%d" % limit, b"%d" % max(0, remaining)
    return [
        (b"x-ratelimit-limit-tokens-month", limit_raw),
        (b"x-ratelimit-remaining-tokens-month", remaining_raw),
        (b"x-ratelimitbysize-limit-month", limit_raw),
        (b"x-ratelimitbysize-remaining-month", remaining_raw),
    ]
