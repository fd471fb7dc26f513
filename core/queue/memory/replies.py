"""Reply streams: what workers send, until their submitter has read it. No heart-beat, no stream."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from core.clock import Clock
from core.queue.base import REPLIES_KEPT_MS
from core.queue.memory.bell import Bell
from core.wire import Event


@dataclass(slots=True)
class _Stream:
    kept_until_ms: int
    events: list[Event] = field(default_factory=list)
    bell: Bell = field(default_factory=Bell)


class ReplyStreams:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._streams: dict[str, _Stream] = {}

    def keep(self, submitter: str) -> Bell:
        """Create the stream, or let it live on; its bell rings when something arrives."""
        stream = self._live(submitter)
        if stream is None:
            stream = self._streams[submitter] = _Stream(0)
        stream.kept_until_ms = self._clock.now_ms() + REPLIES_KEPT_MS
        return stream.bell

    def send(self, submitter: str, events: Sequence[Event]) -> bool:
        """False if nobody reads it."""
        stream = self._live(submitter)
        if stream is None:
            return False
        stream.events.extend(events)
        stream.bell.ring()
        return True

    def take(self, submitter: str) -> list[Event]:
        stream = self._live(submitter)
        if stream is None:
            return []
        events, stream.events = stream.events, []
        return events

    def close(self, submitter: str) -> None:
        self._streams.pop(submitter, None)

    def _live(self, submitter: str) -> _Stream | None:
        stream = self._streams.get(submitter)
        if stream is not None and stream.kept_until_ms <= self._clock.now_ms():
            del self._streams[submitter]
            return None
        return stream
