"""`tramontane run embed`: the embedding tiers of the catalog in one process, an encoder and a loop for each."""

from prometheus_client import CollectorRegistry
from structlog.stdlib import BoundLogger

from core.catalog import Tier
from core.clock import Clock
from core.errors import SetupError
from core.installation import catalog_for
from core.logs import set_up_logs
from core.metrics_port import serve_metrics
from core.queue.metrics import WorkerMetrics
from core.queue.process import Work, serve
from core.settings import limit_threads, read_settings
from core.wire import EMBED
from embed.encoders.factory import make_encoder
from embed.executor import EmbeddingExecutor
from embed.settings import EmbedSettings


def main() -> int:
    """Run until SIGTERM or SIGINT has drained it; the exit code. Raises SetupError."""
    settings = read_settings(EmbedSettings)
    catalog = catalog_for(settings)
    tiers = [tier for tier in catalog.tiers if tier.kind == EMBED]
    if not tiers:
        raise SetupError("There is no embedding tier to serve.")
    limit_threads(max(tier.threads for tier in tiers))  # before an encoder's module loads torch

    def make(tier: Tier, clock: Clock, log: BoundLogger) -> EmbeddingExecutor:
        return EmbeddingExecutor(tier, make_encoder(tier, settings.home), clock, log)

    registry = CollectorRegistry()
    work = Work(tiers, make, WorkerMetrics(registry).of)
    serve_metrics(settings, registry)
    return serve(work, settings, settings.loop(), catalog, set_up_logs("embed", settings.log_level))
