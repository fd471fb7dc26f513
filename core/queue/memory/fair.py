"""Fair order of one tier: organisations by weight, in each its workspaces, by virtual time in units of cost.

Start-time fair queueing: a flow that was empty starts at the virtual time at which the last job was served. Flows are
remembered for as long as the process lives: there are no more of them than workspaces.
"""

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from core.queue.base import AGEING_MS
from core.wire import BATCH, Job


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued job. `order` is that of admission, so that a job that is run again comes before all that still wait."""

    order: int
    job: Job
    since_ms: int

    def aged(self, now_ms: int) -> bool:
        return now_ms - self.since_ms > AGEING_MS


@dataclass(slots=True)
class Workspace:
    name: str
    virtual: float = 0.0
    interactive: list[Waiting] = field(default_factory=list)
    batch: list[Waiting] = field(default_factory=list)

    @property
    def queued(self) -> int:
        return len(self.interactive) + len(self.batch)

    def band(self, job: Job) -> list[Waiting]:
        return self.batch if job.band == BATCH else self.interactive

    def head(self, now_ms: int, *, urgent: bool) -> Waiting | None:
        """The oldest job; only an interactive or aged one if `urgent`."""
        heads = [band[0] for band in (self.interactive, self.batch) if band]
        if urgent:
            heads = [head for head in heads if head.job.band != BATCH or head.aged(now_ms)]
        return min(heads, key=lambda head: head.order, default=None)


@dataclass(slots=True)
class Organisation:
    """`served` is the virtual time of the workspace last served, `running` the jobs that workers hold."""

    name: str
    weight: int = 1
    virtual: float = 0.0
    served: float = 0.0
    running: int = 0
    workspaces: dict[str, Workspace] = field(default_factory=dict)

    @property
    def queued(self) -> int:
        return sum(workspace.queued for workspace in self.workspaces.values())


Flow = TypeVar("Flow", Organisation, Workspace)


class FairQueue:
    def __init__(self) -> None:
        self._organisations: dict[str, Organisation] = {}
        self._served = 0.0

    def organisation(self, name: str) -> Organisation:
        return self._organisations.setdefault(name, Organisation(name))

    def push(self, waiting: Waiting) -> None:
        job = waiting.job
        organisation, workspace = self._flow(job)
        if organisation.queued == 0:
            organisation.virtual = max(organisation.virtual, self._served)
        if workspace.queued == 0:
            workspace.virtual = max(workspace.virtual, organisation.served)
        insort(workspace.band(job), waiting, key=lambda each: each.order)

    def next(self, now_ms: int, allowed: Callable[[Organisation], bool]) -> Job | None:
        """The job whose turn it is, among the organisations that are allowed one; it stays in the queue."""
        for urgent in (True, False):
            workspaces = {
                organisation.name: heads
                for organisation in self._organisations.values()
                if (heads := _heads(organisation, now_ms, urgent=urgent)) and allowed(organisation)
            }
            if workspaces:
                organisation = _first([self._organisations[name] for name in workspaces])
                heads = workspaces[organisation.name]
                return heads[_first([organisation.workspaces[name] for name in heads]).name].job
        return None

    def remove(self, job: Job) -> None:
        band = self._flow(job)[1].band(job)
        band.remove(next(waiting for waiting in band if waiting.job.request_id == job.request_id))

    def charge(self, job: Job) -> None:
        """A worker takes the job: both flows advance, and what was empty until now starts from here."""
        organisation, workspace = self._flow(job)
        self._served, organisation.served = organisation.virtual, workspace.virtual
        organisation.virtual += job.cost_expected / organisation.weight
        workspace.virtual += job.cost_expected

    def correct(self, job: Job, cost: int) -> None:
        """The job is done and cost so much instead of what was expected."""
        organisation, workspace = self._flow(job)
        organisation.virtual += (cost - job.cost_expected) / organisation.weight
        workspace.virtual += cost - job.cost_expected

    def active(self) -> list[Organisation]:
        return [each for each in self._organisations.values() if each.queued or each.running]

    def position(self, job: Job) -> int:
        """How many jobs of its workspace and band come before it."""
        waiting = self._flow(job)[1].band(job)
        return next(index for index, each in enumerate(waiting) if each.job.request_id == job.request_id)

    def _flow(self, job: Job) -> tuple[Organisation, Workspace]:
        organisation = self.organisation(job.organisation)
        return organisation, organisation.workspaces.setdefault(job.workspace, Workspace(job.workspace))


def _heads(organisation: Organisation, now_ms: int, *, urgent: bool) -> dict[str, Waiting]:
    heads = ((name, each.head(now_ms, urgent=urgent)) for name, each in organisation.workspaces.items())
    return {name: head for name, head in heads if head is not None}


def _first(flows: list[Flow]) -> Flow:
    return min(flows, key=lambda flow: (flow.virtual, flow.name.encode()))
