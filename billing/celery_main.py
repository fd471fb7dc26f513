"""`tramontane run celery`: the periodic jobs, and the clock that calls for them."""

import os
import threading

from prometheus_client import CollectorRegistry, Gauge
from redis.exceptions import RedisError
from structlog.stdlib import BoundLogger

from billing.celery_app import CANARY, MAKE_UP, make_app, make_clock, make_worker
from billing.check import CHECKS, Findings
from billing.jobs import JOBS, RUN_MS_MAX, Workshop, make_up, run_now
from billing.settings import CelerySettings
from billing.treasury import EpochNotOpenError
from core.clock import Clock, SystemClock
from core.db import DatabaseUnavailableError, connect_database
from core.heartbeat import BEAT_S, Beat, Heartbeat
from core.ids import SystemIds
from core.logs import set_up_logs
from core.metrics_port import serve_metrics
from core.settings import read_settings

CANARY_S_MAX = 45.0
MS_PER_S = 1_000
NICENESS = 10  # periodic work waits for requests where both share a processor
TROUBLE = (DatabaseUnavailableError, EpochNotOpenError, RedisError, OSError)  # what passes by itself


class Canary:
    """Ready: a message went through the broker lately, or a job is at work. Neither for too long: it does not beat, and
    whoever watches starts the process again. A worker that lives and no longer takes messages is told this way.
    """

    def __init__(self, heartbeat: Heartbeat, clock: Clock) -> None:
        self._heartbeat = heartbeat
        self._clock = clock
        self._heard_s = clock.monotonic_s()
        self._sang = False
        self._busy_since_s: float | None = None
        self._stopped = threading.Event()

    def sing(self) -> None:
        self._heard_s = self._clock.monotonic_s()
        self._sang = True

    def busy(self) -> None:
        self._busy_since_s = self._clock.monotonic_s()

    def idle(self) -> None:
        self._busy_since_s = None
        self._heard_s = self._clock.monotonic_s()

    def look(self) -> None:
        """Beat, unless this process is stuck."""
        now_s = self._clock.monotonic_s()
        since_s, longest_s = self._heard_s, CANARY_S_MAX
        if self._busy_since_s is not None:
            since_s, longest_s = self._busy_since_s, RUN_MS_MAX / MS_PER_S
        if now_s - since_s <= longest_s:
            self._heartbeat.beat(Beat(ready=self._sang, note="" if self._sang else "waiting for the broker"))

    def run(self) -> None:
        while not self._stopped.wait(BEAT_S):
            self.look()

    def stop(self) -> None:
        self._stopped.set()


class BooksGauge:
    """Findings of the last check, for /metrics of this machine's gateways or of this process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._findings = Gauge(
            "tramontane_books_findings",
            "What disagreed in the last check of the books.",
            ("check",),
            registry=registry,
            multiprocess_mode="mostrecent",
        )

    def show(self, findings: Findings) -> None:
        for name in CHECKS:
            self._findings.labels(name).set(findings.counts[name])


def main() -> int:
    """Run until SIGTERM or SIGINT, then finish the job at hand; the exit code. Raises SetupError."""
    os.nice(NICENESS)
    settings = read_settings(CelerySettings)
    log = set_up_logs("celery", settings.log_level)
    clock = SystemClock()
    database = connect_database(settings.database())
    registry = CollectorRegistry()
    shop = Workshop(
        database=database,
        redis_url=settings.redis(),
        redis_timeout_s=settings.redis_timeout_s,
        cell=settings.cell,
        clock=clock,
        ids=SystemIds(clock),
        log=log,
        checked=BooksGauge(registry).show,
    )
    serve_metrics(settings, registry)
    canary = Canary(Heartbeat(settings.heartbeat_file), clock)
    try:
        serve(shop, canary, settings.broker(), settings.celery_name)
    finally:
        database.close()
    return 0


def serve(shop: Workshop, canary: Canary, broker_url: str, name: str) -> None:
    """In the main thread, for Celery hears signals there."""

    def perform_job(job: str) -> None:
        perform(shop, canary, job)

    app = make_app(broker_url, perform_job)
    beating = threading.Thread(target=canary.run, name="heartbeat", daemon=True)
    ticking = make_clock(app)
    beating.start()
    ticking.start()
    shop.log.info("celery started", jobs=sorted(JOBS))
    try:
        make_worker(app, name).start()
    finally:
        canary.stop()
        ticking.stop()
        beating.join()
    shop.log.info("celery stopped")


def perform(shop: Workshop, canary: Canary, name: str) -> None:
    """What one message asks for. Trouble that passes is logged: make_up comes back to it."""
    if name == CANARY:
        canary.sing()
        return
    canary.busy()
    try:
        if name == MAKE_UP:
            make_up(shop)
        else:
            run_now(shop, JOBS[name])
    except TROUBLE as error:
        log_failure(shop.log, name, error)
    finally:
        canary.idle()


def log_failure(log: BoundLogger, name: str, error: Exception) -> None:
    log.warning("job_failed", job=name, error=f"{type(error).__name__}: {error}")
