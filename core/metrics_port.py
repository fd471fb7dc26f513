"""The counters of one process on a port of its own, for processes that share no folder with a gateway.

On one machine the processes keep their counters in files and the gateway's /metrics sums them; several containers
would write over each other's files, for in each the process has the same id.
"""

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

from core.errors import SetupError
from core.settings import PlatformSettings


def serve_metrics(settings: PlatformSettings, registry: CollectorRegistry) -> None:
    """From a thread of its own, until the process ends; nothing where no port is asked for. Raises SetupError."""
    if settings.metrics_port is None:
        return
    ProcessCollector(registry=registry)
    try:
        start_http_server(settings.metrics_port, addr=settings.metrics_host, registry=registry)
    except OSError as error:
        place = f"{settings.metrics_host} port {settings.metrics_port}"
        raise SetupError(f"Metrics cannot be served on {place}: {error.strerror}.") from error
