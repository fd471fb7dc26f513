"""What becomes of a request, as its HTTP side sees it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from core.queue.base import Admitted
from core.wire import Answer, TokenLogprob, Usage


class ClientLeft(Exception):  # noqa: N818 - not an error: there is just nobody to answer any more
    """Folding ended because the conversation was abandoned."""


@dataclass(frozen=True, slots=True)
class Delta:
    """Text to pass on, never empty, and how many tokens it took. `token_ids` and `logprobs`, one for each token, only
    if log probabilities were asked for.
    """

    choice: int
    text: str
    token_count: int
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing came for a while. `queue_position` is -1 once a worker has the request."""

    queue_position: int
    queue_wait_ms: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event. With `error` (a sentence for the caller) every reason is "error" and nothing was charged, unless
    `ended_by` names the caller's own doing (slow_reader, revoked).
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

    answers: tuple[Answer, ...]
    finish_reasons: tuple[str, ...]
    usage: Usage
    cost_nano: int
    vectors: tuple[bytes, ...]
    ended_by: str | None

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple([answer.text for answer in self.answers])


class Reply(Protocol):
    """An admitted request on its way to its end, or an answer that is told again."""

    @property
    def request_id(self) -> str: ...

    @property
    def admitted(self) -> Admitted | None:
        """None: nothing was admitted for this caller, an earlier answer is told again."""

    def events(self) -> AsyncIterator[Delta | Waiting | Finished]:
        """Ends with Finished, or silently once the caller is gone. Raises PlatformError as long as no text was handed
        out.
        """

    async def fold(self) -> Folded:
        """The whole answer. Raises PlatformError, or ClientLeft once the caller is gone."""

    def delivered(self, choice: int, token_count: int) -> None:
        """The server's send has accepted a delta."""

    async def abandon(self) -> None:
        """The caller is gone. Does nothing after the end, or a second time."""

    def leave(self) -> None:
        """`abandon` for who cannot wait."""
