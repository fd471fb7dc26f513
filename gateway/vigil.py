"""When a silent request must be looked after: its phase, its three clocks, and when to ask, to wait, to give up."""

from enum import Enum, auto

from core.clock import Clock
from gateway.desk import ExchangeSettings

MS_PER_S = 1_000


class Phase(Enum):
    QUEUED = auto()
    RUNNING = auto()
    ANSWERING = auto()


class Vigil:
    """All times are in seconds on the monotonic clock."""

    def __init__(self, settings: ExchangeSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        now_s = clock.monotonic_s()
        self.phase = Phase.QUEUED
        self._phase_s = self._heard_s = self._asked_s = self._told_s = now_s
        self._hold_s = now_s
        self._settled_s: float | None = None

    def enter(self, phase: Phase) -> None:
        self.phase = phase
        self._phase_s = self._heard_s = self._clock.monotonic_s()

    def heard(self) -> None:
        """The worker has spoken."""
        self._heard_s = self._clock.monotonic_s()

    def asked(self) -> None:
        """The record was looked up."""
        self._asked_s = self._clock.monotonic_s()

    def told(self) -> None:
        """The client was given something."""
        self._told_s = self._clock.monotonic_s()

    def settled(self) -> None:
        """The record has ended; what is still on its way gets a moment."""
        self._settled_s = self._clock.monotonic_s()

    def hold(self) -> None:
        """The queue is away: leave it alone for a while."""
        self._hold_s = self._clock.monotonic_s() + self._settings.away_retry_ms_max / MS_PER_S

    def held(self) -> bool:
        return self._clock.monotonic_s() < self._hold_s

    def is_due(self) -> bool:
        return self._clock.monotonic_s() >= self.due_s()

    def must_tell(self) -> bool:
        return self._clock.monotonic_s() - self._told_s >= self._settings.keepalive_ms / MS_PER_S

    def has_expired(self) -> bool:
        since_s, limit_s = self._limit()
        return self._clock.monotonic_s() - since_s >= limit_s

    @property
    def limit_s(self) -> float:
        """How long the present phase may last."""
        return self._limit()[1]

    def due_s(self) -> float:
        """When to look again, if nothing is heard before."""
        settings = self._settings
        if self._settled_s is not None:
            return self._settled_s + settings.settle_grace_ms / MS_PER_S
        if self.held():
            return self._hold_s
        since_s, limit_s = self._limit()
        ask_s = max(self._heard_s, self._asked_s) + settings.lease_ms / MS_PER_S
        tell_s = self._told_s + settings.keepalive_ms / MS_PER_S
        return min(ask_s, tell_s, since_s + limit_s)

    def _limit(self) -> tuple[float, float]:
        settings = self._settings
        match self.phase:
            case Phase.QUEUED:
                return self._phase_s, settings.queue_wait_ms_max / MS_PER_S
            case Phase.RUNNING:
                return self._phase_s, settings.first_token_ms_max / MS_PER_S
            case Phase.ANSWERING:
                return self._heard_s, settings.idle_ms_max / MS_PER_S
