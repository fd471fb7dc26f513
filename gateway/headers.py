"""Response headers: both of Mistral's rate-limit families, and what a request cost and waited."""

from collections.abc import Sequence

from core.errors import Refusal
from core.queue.rules import RuleKind, RuleState

RawHeaders = list[tuple[bytes, bytes]]

JSON_TYPE = b"application/json"
EVENT_STREAM_TYPE = b"text/event-stream; charset=utf-8"
REQUEST_ID = b"mistral-correlation-id"
REQUEST_ID_KONG = b"x-kong-request-id"


def request_id_headers(request_id: str) -> RawHeaders:
    raw = request_id.encode("ascii")
    return [(REQUEST_ID, raw), (REQUEST_ID_KONG, raw)]


def limit_headers(rules: Sequence[RuleState]) -> RawHeaders:
    """The tightest rule of each kind, under today's names and under those of 2024."""
    headers: RawHeaders = []
    requests = _tightest(rules, RuleKind.REQUESTS_PER_MINUTE)
    if requests is not None:
        headers.append((b"x-ratelimit-limit-req-minute", b"%d" % requests.rule.limit))
        headers.append((b"x-ratelimit-remaining-req-minute", b"%d" % max(0, requests.remaining)))
    tokens = _tightest(rules, RuleKind.TOKENS_PER_MINUTE)
    if tokens is not None:
        limit, remaining = b"%d" % tokens.rule.limit, b"%d" % max(0, tokens.remaining)
        headers += [
            (b"x-ratelimit-limit-tokens-minute", limit),
            (b"x-ratelimit-remaining-tokens-minute", remaining),
            (b"ratelimitbysize-limit", limit),
            (b"ratelimitbysize-remaining", remaining),
            (b"ratelimitbysize-reset", b"%d" % -(-tokens.reset_ms // 1_000)),
            (b"x-ratelimitbysize-limit-minute", limit),
            (b"x-ratelimitbysize-remaining-minute", remaining),
        ]
    return headers


def query_cost_headers(total_tokens: int) -> RawHeaders:
    """Known only once the answer is complete, so never on a stream."""
    raw = b"%d" % total_tokens
    return [(b"x-ratelimit-tokens-query-cost", raw), (b"ratelimitbysize-query-cost", raw)]


def cost_header(cost_nano: int) -> tuple[bytes, bytes]:
    return (b"x-tramontane-cost-nano", b"%d" % cost_nano)


def queue_header(wait_ms: int) -> tuple[bytes, bytes]:
    """What the queue expected at admission."""
    return (b"x-tramontane-queue-ms", b"%d" % wait_ms)


def overhead_header(seconds: float) -> tuple[bytes, bytes]:
    """What the gateway itself took, without the wait for the answer; with microseconds."""
    return (b"x-tramontane-overhead-ms", b"%.3f" % (seconds * 1_000))


def refusal_headers(refusal: Refusal) -> RawHeaders:
    """The pair of the rule that refused; the others are not known then."""
    limit, remaining = b"%d" % refusal.limit, b"%d" % max(0, refusal.remaining)
    if refusal.rule == RuleKind.REQUESTS_PER_MINUTE:
        return [(b"x-ratelimit-limit-req-minute", limit), (b"x-ratelimit-remaining-req-minute", remaining)]
    if refusal.rule == RuleKind.TOKENS_PER_MINUTE:
        return [(b"x-ratelimit-limit-tokens-minute", limit), (b"x-ratelimit-remaining-tokens-minute", remaining)]
    return []


def _tightest(rules: Sequence[RuleState], kind: RuleKind) -> RuleState | None:
    found = None
    for state in rules:
        if state.rule.kind == kind and (found is None or state.remaining < found.remaining):
            found = state
    return found
