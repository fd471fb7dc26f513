"""Starts processes, restarts what dies, and stops them in order."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from cli.process import ChildFailedError, ProcessSpec, bound_log, end, ending, log_tail, signal_group, spawn
from core.clock import Clock
from core.heartbeat import read_beat

BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 5.0
STEADY_S = 10.0
LOOK_S = 1.0
READY_LOOK_S = 0.05
SILENT_LOOKS_MAX = 30


async def _nothing(_stage: int) -> None: ...


@dataclass(slots=True)
class _Child:
    spec: ProcessSpec
    process: asyncio.subprocess.Process
    task: asyncio.Task[None] | None = None
    has_beaten: bool = False
    silent_looks: int = 0


@dataclass(slots=True)
class _Phase:
    """`settled`: the start is over, from now on a death is mended instead of reported."""

    settled: bool = False
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """`tell` gets a sentence for each death; `changed` the (name, pid) of all children whenever one has changed;
    `ended` the name and pid of each process that is gone.
    """

    def __init__(
        self,
        clock: Clock,
        tell: Callable[[str], None],
        changed: Callable[[Sequence[tuple[str, int]]], None],
        ended: Callable[[str, int], None],
    ) -> None:
        self._clock = clock
        self._tell = tell
        self._changed = changed
        self._ended = ended
        self._children: dict[str, _Child] = {}
        self._phase = _Phase()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self, specs: Iterable[ProcessSpec]) -> None:
        for spec in specs:
            child = _Child(spec, await spawn(spec))
            self._children[spec.name] = child
            child.task = asyncio.create_task(self._keep(child))
        self._report()

    async def ready(self, names: Iterable[str], reached: Callable[[str], None], note: Callable[[str], None]) -> None:
        """Wait until each of the processes has said so by its beat. ChildFailedError if one ends first."""
        waiting = [self._children[name] for name in names]
        while waiting:
            notes = []
            for child in list(waiting):
                beat = None if child.spec.beat is None else read_beat(child.spec.beat)
                if beat is not None and beat.ready:
                    waiting.remove(child)
                    reached(child.spec.name)
                elif beat is not None and beat.note:
                    notes.append(f"{child.spec.name}: {beat.note}")
            if waiting:
                note(", ".join(notes or [child.spec.name for child in waiting]))
            await self.pause(READY_LOOK_S)

    async def pause(self, seconds: float) -> None:
        """Sleep, but raise ChildFailedError as soon as a process ends during the start."""
        await asyncio.wait({self._failure}, timeout=seconds)
        if self._failure.done():
            self._failure.result()

    async def watch(self) -> None:
        """After the start, for as long as the platform runs: bounds logs, ends processes that no longer beat."""
        self._phase.settled = True
        while not self._phase.stopping.is_set():
            self.look()
            await self._wait_for_stop(LOOK_S)

    def look(self) -> None:
        """One look at each child: its log, its beat."""
        for child in self._children.values():
            try:
                bound_log(child.spec.log)
            except OSError as error:  # a full disk must not end a platform that runs
                self._tell(f"{child.spec.log} cannot be put aside: {error.strerror}.")
            self._check_beat(child)

    def _check_beat(self, child: _Child) -> None:
        """Counts looks, not seconds: a machine that slept has not been silent."""
        if child.spec.beat is None or child.process.returncode is not None:
            return
        if read_beat(child.spec.beat) is not None:
            child.has_beaten, child.silent_looks = True, 0
            return
        child.silent_looks += 1
        if child.has_beaten and child.silent_looks > SILENT_LOOKS_MAX:
            self._tell(f"{child.spec.name} has not beaten for {SILENT_LOOKS_MAX} s and is ended.")
            child.silent_looks = 0
            signal_group(child.process.pid, signal.SIGKILL, whole=True)

    async def stop(self, note: Callable[[str], None], before: Callable[[int], Awaitable[None]] = _nothing) -> None:
        """The highest stage first, each within its drain_s; `hurry` cuts the rest short. `before` is awaited with the
        number of each stage that is about to end.
        """
        self._phase.stopping.set()
        for stage in sorted({child.spec.stage for child in self._children.values()}, reverse=True):
            children = [child for child in self._children.values() if child.spec.stage == stage]
            note(", ".join(child.spec.name for child in children))
            await before(stage)
            await asyncio.gather(*(end(child.process, child.spec.drain_s, self._phase.hurry) for child in children))
            await asyncio.gather(*(child.task for child in children if child.task is not None))

    def hurry(self) -> None:
        self._phase.hurry.set()

    async def _keep(self, child: _Child) -> None:
        backoff_s = BACKOFF_FIRST_S
        while True:
            began_s = self._clock.monotonic_s()
            code = await child.process.wait()
            self._ended(child.spec.name, child.process.pid)
            if self._phase.stopping.is_set():
                return
            if not self._phase.settled:
                self._fail(child.spec, code)
                return
            if self._clock.monotonic_s() - began_s > STEADY_S:
                backoff_s = BACKOFF_FIRST_S
            self._tell(f"{child.spec.name} ended ({ending(code)}) and is started again; see {child.spec.log}.")
            await self._wait_for_stop(backoff_s)
            if self._phase.stopping.is_set():
                return
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
            await self._restart(child)

    async def _restart(self, child: _Child) -> None:
        child.has_beaten, child.silent_looks = False, 0
        try:
            child.process = await spawn(child.spec)
        except OSError as error:
            self._tell(f"{child.spec.name} cannot be started: {error.strerror}.")
            return  # the process that ended still stands there, so it is tried again
        if self._phase.stopping.is_set():  # stop() has seen only the process before
            await end(child.process, child.spec.drain_s, self._phase.hurry)
        self._report()

    def _fail(self, spec: ProcessSpec, code: int) -> None:
        if not self._failure.done():
            tail = log_tail(spec.log)
            sentence = f"{spec.name} did not start ({ending(code)}); its log is {spec.log}."
            self._failure.set_exception(ChildFailedError(f"{sentence}\n{tail}" if tail else sentence))
            # Read here so that a failure that nobody waits for, while stopping, is not reported as lost.
            self._failure.exception()

    def _report(self) -> None:
        self._changed([(name, child.process.pid) for name, child in self._children.items()])

    async def _wait_for_stop(self, timeout_s: float) -> None:
        try:
            await asyncio.wait_for(self._phase.stopping.wait(), timeout_s)
        except TimeoutError:
            return
