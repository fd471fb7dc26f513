"""What a conversation tells the HTTP side."""

from dataclasses import dataclass

from core.wire import Usage


class ClientLeft(Exception):  # noqa: N818 - not an error: there is just nobody to answer any more
    """Folding ended because the conversation was abandoned."""


@dataclass(frozen=True, slots=True)
class Delta:
    """Text to pass on, never empty, and how many tokens it took."""

    choice: int
    text: str
    token_count: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing came for a while. `queue_position` is -1 once a worker has the request."""

    queue_position: int
    queue_wait_ms: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event. With `error` (a sentence for the caller) every reason is "error" and nothing was charged, unless
    the reader itself was too slow (ended_by "slow_reader").
    """

    finish_reasons: tuple[str, ...]
    usage: Usage
    cost_nano: int = 0
    vectors: tuple[bytes, ...] = ()
    ended_by: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Folded:
    """A whole answer: one text and one reason per choice, or one vector (little-endian float32) per input."""

    texts: tuple[str, ...]
    finish_reasons: tuple[str, ...]
    usage: Usage
    cost_nano: int
    vectors: tuple[bytes, ...]
    ended_by: str | None
