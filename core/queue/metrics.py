"""Counters of a process with work loops, chat or embedding; the only label is the tier.

With PROMETHEUS_MULTIPROC_DIR set they live in files there, and the gateway's /metrics sums them over processes.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge

from core.queue.base import Outcome


class WorkerMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.tokens = Counter("tramontane_worker_tokens", "Tokens generated.", ("tier",), registry=registry)
        self.steps = Counter("tramontane_worker_steps", "Engine steps.", ("tier",), registry=registry)
        self.requests = Counter(
            "tramontane_worker_requests", "Requests settled.", ("tier", "outcome"), registry=registry
        )
        self.running = Gauge(
            "tramontane_worker_running",
            "Requests held, from take to end.",
            ("tier",),
            registry=registry,
            multiprocess_mode="livesum",
        )

    def of(self, tier: str) -> "TierMetrics":
        return TierMetrics(self, tier)


class TierMetrics:
    """An Observer of one tier's loop; label look-ups are done once."""

    def __init__(self, metrics: WorkerMetrics, tier: str) -> None:
        self._tokens = metrics.tokens.labels(tier)
        self._steps = metrics.steps.labels(tier)
        self._running = metrics.running.labels(tier)
        self._outcomes = {outcome: metrics.requests.labels(tier, outcome.value) for outcome in Outcome}

    def stepped(self, tokens: int) -> None:
        self._steps.inc()
        self._tokens.inc(tokens)

    def holding(self, requests: int) -> None:
        self._running.set(requests)

    def settled(self, outcome: Outcome) -> None:
        self._outcomes[outcome].inc()
