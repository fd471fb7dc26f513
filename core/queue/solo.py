"""One job alone in a process. The queue gives a job that was lost twice only to an empty worker; here it also waits for
the other tiers that its process serves, and they wait for it: whatever it kills, it kills alone.
"""

from collections.abc import Callable

from core.queue.base import SOLO_STRIKES
from core.wire import Job

# Attempts also count what a drain gave back, so this is early rather than late.
SOLO_ATTEMPT = SOLO_STRIKES + 1


class SoloGate:
    """Shared by the loops of one process; bounded by what they hold."""

    def __init__(self) -> None:
        self._running: set[str] = set()
        self._alone: set[str] = set()  # of those that run, who runs alone
        self._waiting: dict[str, tuple[bool, Callable[[], None]]] = {}  # the same, and how it begins; first come first

    @property
    def closed(self) -> bool:
        """A job runs alone, or is about to: nothing more should be taken."""
        return bool(self._alone) or any(alone for alone, _ in self._waiting.values())

    def enter(self, job: Job, begin: Callable[[], None]) -> None:
        """Calls `begin` now, or when its turn has come."""
        self._waiting[job.request_id] = (job.attempt >= SOLO_ATTEMPT, begin)
        self._look()

    def leave(self, request_id: str) -> None:
        """It has ended."""
        self._running.discard(request_id)
        self._alone.discard(request_id)
        self._look()

    def withdraw(self, request_id: str) -> bool:
        """It shall not begin any more; False if it has."""
        waited = self._waiting.pop(request_id, None) is not None
        self._look()
        return waited

    def _look(self) -> None:
        while self._waiting and not self._alone:
            request_id, (alone, begin) = next(iter(self._waiting.items()))
            if alone and self._running:
                return
            del self._waiting[request_id]
            self._running.add(request_id)
            if alone:
                self._alone.add(request_id)
            begin()
