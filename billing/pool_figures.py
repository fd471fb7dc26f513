"""What a tier did for all its callers together: throughput and latencies, for operators."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.models import UsageRecord, UsageSpan
from billing.rollups import SPAN_MS
from billing.sketch import quantile_ms, unpack_sketch
from core.errors import VALIDATION, PlatformError

RANGE_MS_MAX = 86_400_000
RECORDS_MAX = 10_000
ROWS_AT_ONCE = 1_000
MS_PER_S = 1_000
SHARES = (0.5, 0.95, 0.99)

Quantiles = dict[float, float | None]


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """Quantiles in ms, by share; None where nothing was measured. The first token counts from admission. `inter_token`
    is of requests, each one's mean from the first token to its end (choices are generated side by side and count
    together), and only of the youngest RECORDS_MAX of all tiers.
    """

    requests: int
    failed: int
    completion_tokens: int
    tokens_per_s: float
    first_token_ms: Quantiles
    total_ms: Quantiles
    inter_token_ms: Quantiles


@dataclass(slots=True)
class _Sums:
    requests: int = 0
    failed: int = 0
    completion_tokens: int = 0
    first_token: Counter[int] = field(default_factory=Counter)
    total: Counter[int] = field(default_factory=Counter)
    gaps_ms: list[float] = field(default_factory=list)


def pool_figures(
    session: Session, tiers: Sequence[str], from_ms: int, to_ms: int, shares: Sequence[float] = SHARES
) -> dict[str, PoolFigures]:
    """What was admitted in [from_ms, to_ms), both widened to quarters of an hour, by tier. Latencies are those of the
    roll-ups (see billing/sketch.py for their error). Raises PlatformError (VALIDATION) for more than a day.
    """
    if to_ms - from_ms > RANGE_MS_MAX:
        raise PlatformError(VALIDATION, "At most a day at once.", param="from")
    from_ms, to_ms = from_ms - from_ms % SPAN_MS, to_ms + -to_ms % SPAN_MS
    sums = {tier: _Sums() for tier in tiers}
    _add_spans(session, sums, from_ms, to_ms)
    _add_gaps(session, sums, from_ms, to_ms)
    return {tier: _figures(each, to_ms - from_ms, shares) for tier, each in sums.items()}


def _add_spans(session: Session, sums: dict[str, _Sums], from_ms: int, to_ms: int) -> None:
    query = select(
        UsageSpan.tier,
        UsageSpan.requests,
        UsageSpan.failed,
        UsageSpan.completion_tokens,
        UsageSpan.first_token_sketch,
        UsageSpan.total_sketch,
    ).where(UsageSpan.start_ms >= from_ms, UsageSpan.start_ms < to_ms, UsageSpan.tier.in_(sums))
    for tier, requests, failed, tokens, first_token, total in session.execute(
        query.execution_options(yield_per=ROWS_AT_ONCE)
    ):
        each = sums[tier]
        each.requests += requests
        each.failed += failed
        each.completion_tokens += tokens
        each.first_token.update(unpack_sketch(first_token))
        each.total.update(unpack_sketch(total))


def _add_gaps(session: Session, sums: dict[str, _Sums], from_ms: int, to_ms: int) -> None:
    """A request of one token has no gap."""
    query = (
        select(
            UsageRecord.tier,
            UsageRecord.decoded_tokens,
            UsageRecord.settled_ms - UsageRecord.taken_ms - UsageRecord.first_token_ms,
        )
        .where(
            UsageRecord.admitted_ms >= from_ms,
            UsageRecord.admitted_ms < to_ms,
            UsageRecord.tier.in_(sums),
            UsageRecord.first_token_ms > 0,
            UsageRecord.decoded_tokens > 1,
        )
        .order_by(UsageRecord.admitted_ms.desc())
        .limit(RECORDS_MAX)
    )
    for tier, tokens, generating_ms in session.execute(query):
        sums[tier].gaps_ms.append(max(0, generating_ms) / (tokens - 1))


def _figures(sums: _Sums, range_ms: int, shares: Sequence[float]) -> PoolFigures:
    gaps_ms = sorted(sums.gaps_ms)
    return PoolFigures(
        requests=sums.requests,
        failed=sums.failed,
        completion_tokens=sums.completion_tokens,
        tokens_per_s=sums.completion_tokens * MS_PER_S / range_ms,
        first_token_ms={share: quantile_ms(sums.first_token, share) for share in shares},
        total_ms={share: quantile_ms(sums.total, share) for share in shares},
        inter_token_ms={share: _quantile(gaps_ms, share) for share in shares},
    )


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """The least that `share` of all do not exceed, as in quantile_ms."""
    if not ordered:
        return None
    return ordered[max(1, ceil(share * len(ordered))) - 1]
