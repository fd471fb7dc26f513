"""Celery only triggers: each task names a job, which claims its window in SQL and may be lost or come twice.

One process is the worker (in its main thread, one task at a time) and the clock beside it. Several such processes do no
harm. Nothing but names travels through the broker, as JSON; there is no result backend.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from celery.beat import EmbeddedService

from billing.jobs import JOBS

TASK = "tramontane.perform"
QUEUE = "tramontane-jobs"
PREFIX = "tramontane:celery:"
CANARY = "canary"
MAKE_UP = "make_up"
CANARY_S = 5.0
MAKE_UP_S = 300.0
VISIBILITY_S = 3_600  # longer than any job: what is not acknowledged by then is given to another
EXPIRES_S_MIN = 15.0
AT_ONCE = (CANARY, "treasury")  # a start waits for the one, and interrupted transfers for the other
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
MS_PER_S = 1_000


def broker_url(redis_url: str) -> str:
    """As kombu writes URLs: a unix socket is redis+socket:///path."""
    parsed = urlsplit(redis_url)
    return f"redis+socket{redis_url.removeprefix('unix')}" if parsed.scheme == "unix" else redis_url


def make_app(url: str, perform: Callable[[str], None]) -> Celery:
    """`perform` does what a task names: a job, CANARY or MAKE_UP."""
    app = Celery("tramontane", broker=broker_url(url), set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        beat_schedule=_schedule(),
        broker_connection_retry_on_startup=True,
        broker_transport_options={"global_keyprefix": PREFIX, "visibility_timeout": VISIBILITY_S},
        enable_utc=True,
        task_acks_late=True,
        task_create_missing_queues=True,
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_reject_on_worker_lost=True,
        task_serializer="json",
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_prefetch_multiplier=1,
    )
    app.task(name=TASK)(perform)
    return app


def make_worker(app: Celery, name: str) -> Any:
    """One task at a time in the calling thread: start() returns after SIGTERM, when the task at hand is done."""
    return app.Worker(
        hostname=name,
        pool="solo",
        concurrency=1,
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        loglevel="WARNING",
    )


def make_clock(app: Celery) -> Any:
    """The thread that sends what is due; it remembers nothing between starts, the claims do."""
    return EmbeddedService(app, thread=True, scheduler_cls="celery.beat:Scheduler")


def _schedule() -> dict[str, dict[str, Any]]:
    """A message that nobody took until its successor comes is dropped."""
    every_s = {name: job.every_ms / MS_PER_S for name, job in JOBS.items()} | {CANARY: CANARY_S, MAKE_UP: MAKE_UP_S}
    schedule: dict[str, dict[str, Any]] = {
        name: {
            "task": TASK,
            "schedule": seconds,
            "args": (name,),
            "options": {"expires": max(seconds, EXPIRES_S_MIN)},
        }
        for name, seconds in every_s.items()
    }
    for name in AT_ONCE:
        schedule[name]["last_run_at"] = LONG_AGO
    return schedule
