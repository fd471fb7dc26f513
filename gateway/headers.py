"""Response headers: both of Mistral's rate-limit families, and what a request cost and waited."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from core.errors import Refusal
from core.queue.base import Admitted
from core.queue.rules import RuleKind, RuleState

RawHeaders = list[tuple[bytes, bytes]]

JSON_TYPE = b"application/json"
EVENT_STREAM_TYPE = b"text/event-stream; charset=utf-8"
REQUEST_ID = b"mistral-correlation-id"
REQUEST_ID_KONG = b"x-kong-request-id"
REPLAYED = (b"idempotent-replayed", b"true")

# By kind of rule: the names under which its limit is told, and those of what remains.
_PAIRS: Mapping[str, tuple[tuple[bytes, ...], tuple[bytes, ...]]] = MappingProxyType(
    {
        RuleKind.REQUESTS_PER_MINUTE: (
            (b"x-ratelimit-limit-req-minute",),
            (b"x-ratelimit-remaining-req-minute",),
        ),
        RuleKind.TOKENS_PER_MINUTE: (
            (b"x-ratelimit-limit-tokens-minute", b"ratelimitbysize-limit", b"x-ratelimitbysize-limit-minute"),
            (
                b"x-ratelimit-remaining-tokens-minute",
                b"ratelimitbysize-remaining",
                b"x-ratelimitbysize-remaining-minute",
            ),
        ),
        RuleKind.TOKENS_PER_MONTH: (
            (b"x-ratelimit-limit-tokens-month", b"x-ratelimitbysize-limit-month"),
            (b"x-ratelimit-remaining-tokens-month", b"x-ratelimitbysize-remaining-month"),
        ),
    }
)


def request_id_headers(request_id: str) -> RawHeaders:
    raw = request_id.encode("ascii")
    return [(REQUEST_ID, raw), (REQUEST_ID_KONG, raw)]


def limit_headers(rules: Sequence[RuleState]) -> RawHeaders:
    """The tightest rule of each kind, under today's names and those of 2024; and each soft limit that is passed."""
    tightest: dict[RuleKind, RuleState] = {}
    passed: list[bytes] = []
    for state in rules:
        rule = state.rule
        if not rule.hard and state.remaining < 0:
            passed.append(f"{rule.kind};scope={rule.scope}".encode("ascii"))
        if rule.kind in _PAIRS and (rule.kind not in tightest or state.remaining < tightest[rule.kind].remaining):
            tightest[rule.kind] = state
    headers: RawHeaders = []
    for kind, state in tightest.items():
        headers += _pair(kind, state.rule.limit, state.remaining)
        if kind is RuleKind.TOKENS_PER_MINUTE:
            headers.append((b"ratelimitbysize-reset", b"%d" % -(-state.reset_ms // 1_000)))
    if passed:
        headers.append((b"x-tramontane-soft-limit", b", ".join(passed)))
    return headers


def admitted_headers(admitted: Admitted) -> RawHeaders:
    """What admission knows: limits, the queue's own guess, and the price that was pinned."""
    headers = limit_headers(admitted.rules)
    headers.append((b"x-tramontane-queue-ms", b"%d" % admitted.queue_wait_ms))
    if admitted.price_version:
        headers.append((b"x-tramontane-price-version", admitted.price_version.encode("ascii", "replace")))
    return headers


def ignored_header(names: Sequence[str]) -> tuple[bytes, bytes]:
    """Fields that were accepted and do nothing; their names come from tables of ours, never from the caller."""
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
    if refusal.rule not in _PAIRS:
        return []
    return _pair(RuleKind(refusal.rule), refusal.limit, refusal.remaining)


def _pair(kind: RuleKind, limit: int, remaining: int) -> RawHeaders:
    limit_raw, remaining_raw = b"%d" % limit, b"%d" % max(0, remaining)
    limits, remainings = _PAIRS[kind]
    return [*((name, limit_raw) for name in limits), *((name, remaining_raw) for name in remainings)]
