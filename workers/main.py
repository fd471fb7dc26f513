"""`tramontane run worker`: the chat tiers of the catalog or those named, an engine and a loop for each."""

import functools

from prometheus_client import CollectorRegistry
from structlog.stdlib import BoundLogger

from core.catalog import Tier
from core.clock import Clock
from core.errors import SetupError
from core.experts import RedisExpertLog
from core.installation import catalog_for
from core.logs import set_up_logs
from core.metrics_port import serve_metrics
from core.queue.metrics import WorkerMetrics
from core.queue.process import Work, serve
from core.redis import connect
from core.settings import limit_threads, read_settings
from core.weights import resolve_weights
from workers.engines.factory import make_engine
from workers.experts import ExpertReporter
from workers.generator import Generator
from workers.settings import WorkerSettings
from workers.text import Vocabulary


def main() -> int:
    """Run until SIGTERM or SIGINT has drained it; the exit code. Raises SetupError."""
    settings = read_settings(WorkerSettings)
    catalog = catalog_for(settings)
    tiers = [tier for tier in catalog.tiers if tier.kind == "chat"]
    if not tiers:
        raise SetupError("There is no chat tier for a worker to serve.")
    limit_threads(max(tier.threads for tier in tiers))  # before an engine's module loads torch
    vocabulary = functools.cache(Vocabulary.load)

    def make(tier: Tier, clock: Clock, log: BoundLogger) -> Generator:
        engine = make_engine(tier, resolve_weights(tier.weights, settings.home), clock, log)
        experts = RedisExpertLog(connect(settings.redis(), settings.redis_timeout_s), settings.cell)
        reporter = ExpertReporter(experts, settings.experts_one_in, log)
        return Generator(engine, vocabulary(tier.tokenizer), log, reporter)

    registry = CollectorRegistry()
    work = Work(tiers, make, WorkerMetrics(registry).of)
    serve_metrics(settings, registry)
    return serve(work, settings, settings.loop(), catalog, set_up_logs("worker", settings.log_level))
