"""What the take-renew-finish loop drives: text generation in a worker, batched encoding in the embedding service."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from core.wire import End, Job, Piece


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that needs no more steps: `end` holds the counted usage; `failed` means nothing is charged."""

    end: End
    failed: bool = False


@dataclass(frozen=True, slots=True)
class ExecutorStats:
    """`last_step_s` is on the monotonic clock: a busy executor whose last step is long ago is stalled."""

    running: int
    last_step_s: float


class Executor(Protocol):
    async def start(self) -> None:
        """Load what is needed; returns when jobs can be submitted."""

    def submit(self, job: Job) -> None:
        """Never blocks and never raises for a bad job: its failure is an Ended."""

    def cover(self, request_id: str, output_tokens: int) -> None:
        """So many output tokens, over all choices, may be put out now; it began with the job's `output_covered`. What
        is computed beyond waits inside, uncounted, and is dropped by an abort. Unknown ids are ignored.
        """

    def abort(self, request_id: str) -> None:
        """Stop a request; an Ended with what was generated so far follows. Unknown ids are ignored."""

    def steps(self) -> AsyncIterator[list[Piece | Ended]]:
        """Everything one engine step brought, for all requests. Every submitted job ends with exactly one Ended."""

    def stats(self) -> ExecutorStats: ...

    async def close(self) -> None: ...
