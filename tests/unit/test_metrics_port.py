"""A process's counters on a port of its own."""

import socket
import threading
import urllib.request

import pytest
from prometheus_client import CollectorRegistry

from core.errors import SetupError
from core.metrics_port import serve_metrics
from core.queue.metrics import WorkerMetrics
from core.settings import PlatformSettings


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def test_what_a_worker_counts_is_served_on_loopback():
    registry, port = CollectorRegistry(), free_port()
    metrics = WorkerMetrics(registry).of("small")
    serve_metrics(PlatformSettings(metrics_port=port), registry)
    metrics.stepped(7)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'tramontane_worker_tokens_total{tier="small"} 7.0' in text
    assert "process_resident_memory_bytes" in text


def test_nothing_listens_where_no_port_is_asked_for():
    before = threading.active_count()
    serve_metrics(PlatformSettings(), CollectorRegistry())
    assert threading.active_count() == before


def test_a_port_that_is_taken_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            SetupError, match=f"Metrics cannot be served on 127.0.0.1 port {port}: Address already in use"
        ):
            serve_metrics(PlatformSettings(metrics_port=port), CollectorRegistry())
