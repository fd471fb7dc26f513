"""Who counts what a work loop does."""

from typing import Protocol

from core.queue.base import Outcome


class Observer(Protocol):
    """Counts what happens, for metrics."""

    def stepped(self, tokens: int) -> None: ...

    def holding(self, requests: int) -> None: ...

    def settled(self, outcome: Outcome) -> None: ...


class NoObserver:
    def stepped(self, tokens: int) -> None: ...

    def holding(self, requests: int) -> None: ...

    def settled(self, outcome: Outcome) -> None: ...
