"""The dashboard and the alerts ask for metrics that exist."""

import json
import re

import yaml
from prometheus_client import CollectorRegistry, generate_latest

from billing.celery_main import BooksGauge
from billing.check import Findings
from core.queue.base import QueueStats, TierStats
from core.queue.metrics import WorkerMetrics
from gateway.metrics import GatewayMetrics
from tests.compose_file import ROOT

DASHBOARD = ROOT / "deploy" / "grafana" / "overview.json"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"


def expressions():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    return [target["expr"] for panel in panels for target in panel["targets"]] + [rule["expr"] for rule in rules]


def metrics_asked_for():
    """Names in the expressions; of a histogram without its _bucket."""
    found = re.findall(r"\b(tramontane_\w+|up)\b", " ".join(expressions()))
    return {name.removesuffix("_bucket") for name in found}


def test_dashboard_and_alerts_ask_for_metrics_that_gateways_workers_or_the_check_of_the_books_export():
    stats = QueueStats({"mistral-tiny": TierStats(0, 0, 1, 0)}, 0, 0, 0)
    checked = CollectorRegistry()
    BooksGauge(checked).show(Findings())
    working = CollectorRegistry()
    WorkerMetrics(working).of("mistral-tiny")
    text = (GatewayMetrics(None).render(stats) + generate_latest(checked) + generate_latest(working)).decode()
    exported = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)) | {"up"}
    assert metrics_asked_for() <= exported
    assert len(metrics_asked_for()) > 12


def test_queue_gauges_are_never_summed_over_gateways():
    """Each gateway reads the same ones from Redis."""
    gauges = "tramontane_(queue|running|workers|reservations|usage|dead)"
    assert [one for one in expressions() if re.search(rf"sum(?! \(rate| by [^)]*\) \(rate)[^(]*\({gauges}", one)] == []


def test_panels_have_ids_and_places_of_their_own():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
