"""Claims of periodic tasks in SQL: each window of time is worked once, whoever is asked and how often."""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import delete, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from billing.models import TaskRun
from core.db import insert_new

ERROR_CHARS_MAX = 500


class RunState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Window:
    """One occasion on which a task is due: its name and the start of the time that it covers."""

    name: str
    start_ms: int


def claim(session: Session, window: Window, now_ms: int, run_ms_max: int) -> bool:
    """True: it is the caller's to run. Also if an earlier run failed, or began run_ms_max ago and never ended."""
    row = {
        "name": window.name,
        "window_ms": window.start_ms,
        "state": RunState.RUNNING,
        "started_ms": now_ms,
        "finished_ms": None,
        "error": "",
    }
    mine = (TaskRun.name == window.name, TaskRun.window_ms == window.start_ms)
    known = session.execute(select(TaskRun.state).where(*mine)).first()
    if known is None:
        # Marked as failed first, so that of two who insert at once only one makes it running below.
        insert_new(session, TaskRun, [row | {"state": RunState.FAILED}], ["name", "window_ms"])
    free = (TaskRun.state == RunState.FAILED) | (
        (TaskRun.state == RunState.RUNNING) & (TaskRun.started_ms <= now_ms - run_ms_max)
    )
    taken = session.execute(
        update(TaskRun).where(*mine, free).values(state=RunState.RUNNING, started_ms=now_ms, finished_ms=None)
    )
    assert isinstance(taken, CursorResult)
    return taken.rowcount == 1


def finish(session: Session, window: Window, now_ms: int, error: str = "") -> None:
    """Done, or failed with a sentence: then a sweep runs it again."""
    session.execute(
        update(TaskRun)
        .where(TaskRun.name == window.name, TaskRun.window_ms == window.start_ms)
        .values(state=RunState.FAILED if error else RunState.DONE, finished_ms=now_ms, error=error[:ERROR_CHARS_MAX])
    )


def done(session: Session, name: str, since_ms: int) -> set[int]:
    """Starts of the windows that were done."""
    query = select(TaskRun.window_ms).where(
        TaskRun.name == name, TaskRun.window_ms >= since_ms, TaskRun.state == RunState.DONE
    )
    return set(session.scalars(query))


def forget(session: Session, before_ms: int) -> int:
    """Drop what is older; how many rows."""
    dropped = session.execute(delete(TaskRun).where(TaskRun.window_ms < before_ms))
    assert isinstance(dropped, CursorResult)
    return dropped.rowcount
