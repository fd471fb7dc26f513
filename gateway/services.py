"""Everything a gateway needs, built once in main and passed down. Tests build it with the parts that need no server."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from core.catalog import Catalog
from core.clock import Clock
from core.ids import IdSource
from core.queue.base import QueueKeeper
from gateway.admission import Admitter
from gateway.exchange import Exchange
from gateway.metrics import GatewayMetrics
from gateway.principal import PrincipalSource
from gateway.settings import GatewaySettings


class Lifecycle:
    """Whether this process still wants work."""

    def __init__(self) -> None:
        self.draining = False
        self.broken = False


@dataclass(frozen=True)
class Services:
    """`check_database` raises when SQL cannot be reached."""

    settings: GatewaySettings
    catalog: Catalog
    principals: PrincipalSource
    admitter: Admitter
    exchange: Exchange
    keeper: QueueKeeper
    check_database: Callable[[], Awaitable[None]]
    metrics: GatewayMetrics
    lifecycle: Lifecycle
    clock: Clock
    ids: IdSource
    log: structlog.stdlib.BoundLogger
