"""The pools as an operator sees them: who works, what waits, who takes nothing more, and the dead letters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from core.queue.base import Admission, Price
from core.wire import Job

LETTERS_READ_MAX = 200
RERUN_MS_MAX = 600_000
OPERATOR = "operator"  # in the place of organisation and workspace
FREE = Price(version="dead-letter", input_nano=0, cached_nano=0, output_nano=0)


@dataclass(frozen=True, slots=True)
class WorkerLine:
    """`held` of its `slots` are in use; after `lease_left_ms` without a word it is lost. `drained`: takes nothing."""

    worker_id: str
    slots: int
    held: int
    lease_left_ms: int
    drained: bool


@dataclass(frozen=True, slots=True)
class PoolLine:
    """One tier. `expected_wait_ms`: of a job that comes now, by the measured rate; 0 while none is known. `drained`:
    none of its workers takes anything.
    """

    tier: str
    drained: bool
    queued: int
    running: int
    oldest_wait_ms: int
    expected_wait_ms: int
    workers: tuple[WorkerLine, ...]


@dataclass(frozen=True, slots=True)
class PoolOverview:
    tiers: Mapping[str, PoolLine]
    dead_letters: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A request that lost three workers: settled as failed, without charge. `runnable`: its job was kept with it."""

    letter_id: str
    request_id: str
    tier: str
    organisation: str
    workspace: str
    lost_ms: int
    runnable: bool


class Pools(Protocol):
    async def overview(self, tiers: Sequence[str]) -> PoolOverview:
        """All of it at one moment."""

    async def drain(self, tier: str, worker_id: str = "") -> bool:
        """The tier, or this worker of it, takes nothing more; what it holds goes on, what waits keeps waiting. A worker
        is drained until it leaves, a tier until it is resumed. False if there is no such worker.
        """

    async def resume(self, tier: str, worker_id: str = "") -> bool:
        """Takes effect at once. A worker of a drained tier still takes nothing."""

    async def dead_letters(self, count: int) -> list[DeadLetter]:
        """Youngest first, at most LETTERS_READ_MAX."""

    async def requeue(self, letter_id: str, request_id: str) -> bool:
        """Run it once more under this new id, to see whether it still loses its worker: alone on it, without charge,
        for nobody; how it ends is the standing of that id. The letter is gone; a lost worker makes a new one.
        False if there is no such letter, or its job was not kept.
        """

    async def drop(self, letter_id: str) -> bool:
        """False if there is no such letter."""

    async def close(self) -> None: ...


def rerun(job: Job, request_id: str, now_ms: int) -> Admission:
    """What a dead letter's job is admitted as. The worker must not mind that nobody listens."""
    own = replace(
        job,
        request_id=request_id,
        submitter="",
        organisation=OPERATOR,
        workspace=OPERATOR,
        deadline_ms=now_ms + RERUN_MS_MAX,
        attempt=1,
        streamed=False,
        emitted_ids=(),
        output_covered=0,
        keep_answer=True,
    )
    reserved = 0 if job.sampling is None else job.sampling.max_tokens * job.sampling.n
    return Admission(own, "", 0, (FREE,), (), reserved, weight=1, queue_wait_ms_max=RERUN_MS_MAX)
