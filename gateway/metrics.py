"""What a gateway counts. Labels have few values: routes, tiers, statuses, never keys or organisations."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from core.queue.base import QueueStats
from core.wire import Usage

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
OVERHEAD_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1)
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class GatewayMetrics:
    """`shared_dir`: where the processes of a machine keep their numbers; prometheus_client must have seen it in
    PROMETHEUS_MULTIPROC_DIR when it was imported. None: this process alone.
    """

    def __init__(self, shared_dir: Path | None) -> None:
        self._shared_dir = shared_dir
        self._registry = CollectorRegistry()
        requests = ("route", "method", "status")
        registry = self._registry
        self._requests = Counter("tramontane_http_requests", "Answers sent.", requests, registry=registry)
        self._seconds = Histogram(
            "tramontane_http_request_seconds", "Until the answer ended.", ("route",), buckets=SECONDS, registry=registry
        )
        self._first_event = Histogram(
            "tramontane_first_event_seconds",
            "Of a stream, from the request on.",
            ("tier",),
            buckets=SECONDS,
            registry=registry,
        )
        self._overhead = Histogram(
            "tramontane_gateway_overhead_seconds",
            "What the gateway itself took of a request, without the wait for its answer.",
            ("tier",),
            buckets=OVERHEAD_SECONDS,
            registry=registry,
        )
        self._tokens = Counter("tramontane_tokens", "Billed tokens.", ("tier", "class"), registry=registry)
        self._refusals = Counter("tramontane_refusals", "Requests that a rule refused.", ("rule",), registry=registry)
        self._left = Counter(
            "tramontane_clients_left", "Callers gone before their answer was complete.", ("route",), registry=registry
        )
        self._streams = Gauge(
            "tramontane_streams_open", "Streams being sent.", registry=registry, multiprocess_mode="livesum"
        )

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def started(self, tier: str, seconds: float) -> None:
        self._first_event.labels(tier).observe(seconds)

    def finished(self, tier: str, usage: Usage, overhead_s: float) -> None:
        self._overhead.labels(tier).observe(overhead_s)
        self._tokens.labels(tier, "prompt").inc(usage.prompt_tokens)
        self._tokens.labels(tier, "completion").inc(usage.completion_tokens)
        if usage.cached_tokens:
            self._tokens.labels(tier, "cached").inc(usage.cached_tokens)

    def refused(self, rule: str) -> None:
        self._refusals.labels(rule).inc()

    def client_left(self, route: str) -> None:
        self._left.labels(route).inc()

    def stream_opened(self) -> None:
        self._streams.inc()

    def stream_closed(self) -> None:
        self._streams.dec()

    def render(self, stats: QueueStats | None) -> bytes:
        """Prometheus text: this machine's gateways summed, and the queue as it stands (None: it did not answer)."""
        registry = self._registry
        if self._shared_dir is not None:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, path=str(self._shared_dir))  # type: ignore[no-untyped-call] # library
        queue = CollectorRegistry()
        queue.register(_QueueGauges(stats))
        return generate_latest(registry) + generate_latest(queue)


class _QueueGauges(Collector):
    """Read when asked, never kept, so that several processes do not add them up."""

    def __init__(self, stats: QueueStats | None) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        yield _gauge("tramontane_queue_up", "Whether the queue answered.", [((), float(self._stats is not None))], ())
        if self._stats is not None:
            yield from _queue_gauges(self._stats)


def _queue_gauges(stats: QueueStats) -> Iterator[Metric]:
    tiers = stats.tiers.items()
    label = ("tier",)
    yield _gauge("tramontane_queue_jobs", "Queued.", [((name,), t.queued) for name, t in tiers], label)
    yield _gauge("tramontane_running_jobs", "Taken by workers.", [((name,), t.running) for name, t in tiers], label)
    yield _gauge("tramontane_workers", "With a valid lease.", [((name,), t.workers) for name, t in tiers], label)
    oldest = [((name,), t.oldest_wait_ms / 1_000) for name, t in tiers]
    yield _gauge("tramontane_queue_oldest_seconds", "Age of the oldest queued job.", oldest, label)
    yield _gauge("tramontane_reservations_open", "Admitted, not settled.", [((), stats.reservations_open)], ())
    yield _gauge("tramontane_usage_backlog", "Usage events not collected.", [((), stats.usage_backlog)], ())
    yield _gauge("tramontane_dead_letters", "Requests that lost three workers.", [((), stats.dead_letters)], ())


def _gauge(
    name: str, text: str, samples: Iterable[tuple[tuple[str, ...], float]], labels: tuple[str, ...]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
