"""Everything a gateway needs, built once in main and passed down. Tests build it with the parts that need no server."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from core.catalog import Catalog
from core.clock import Clock
from core.db import Database
from core.ids import IdSource
from core.meter.credit import CounterStore, CreditStore
from core.meter.refusals import RefusalLog
from core.pools import Pools
from core.queue.base import QueueKeeper
from gateway.accounts.keys import Peppers
from gateway.accounts.mail import Mailer
from gateway.admission import Admitter
from gateway.exchange import Exchange
from gateway.gate import Gate
from gateway.metrics import GatewayMetrics
from gateway.principal import PrincipalSource
from gateway.refusal_buffer import RefusalBuffer
from gateway.settings import GatewaySettings


class Lifecycle:
    """Whether this process still wants work."""

    def __init__(self) -> None:
        self.draining = False
        self.broken = False


@dataclass(frozen=True)
class Services:
    """`background` goes on beside the requests for as long as the process serves; without it the process is broken.
    `check_database` raises when SQL cannot be reached. `database` is for routes that read what no admission needs:
    in a thread. `refused` notes refusals, `refusals` is where they can be read; `pools` is for operators. Without a
    `mailer` links are shown to who makes them.
    """

    settings: GatewaySettings
    catalog: Catalog
    principals: PrincipalSource
    admitter: Admitter
    exchange: Exchange
    gate: Gate
    keeper: QueueKeeper
    counters: CounterStore
    credit: CreditStore
    refusals: RefusalLog
    refused: RefusalBuffer
    pools: Pools
    peppers: Peppers
    mailer: Mailer | None
    database: Database
    background: Mapping[str, Callable[[], Coroutine[Any, Any, None]]]
    check_database: Callable[[], Awaitable[None]]
    metrics: GatewayMetrics
    lifecycle: Lifecycle
    clock: Clock
    ids: IdSource
    log: structlog.stdlib.BoundLogger
