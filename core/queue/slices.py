"""Slices of output: what money and limits cover may be delivered, and before it is used up the next slice is asked for.

The engine knows nothing of it: the executor withholds what is not covered yet.
"""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

from core.clock import Clock
from core.queue.base import Extended, Extension, Outcome, WorkerQueue
from core.queue.executor import Executor
from core.queue.held import Held
from core.queue.patience import Patience
from core.wire import Job

SLICE_TOKENS = 1_024  # of each choice
ASK_AT = 0.75  # of what is covered
# Billing needs a moment to give more: what has put out everything that is covered ends after so many refusals.
DRY_REFUSALS_MAX = 4
# No epoch is open: that is our trouble, and passes.
WAITS_FOR = "epoch"
EXTENSIONS_PER_CALL = 128


class Slices:
    """For all requests of one loop. `stop` ends one, once: with CANCELLED if it is no longer ours. `pause_s`: before
    what was refused is asked for again.
    """

    def __init__(
        self,
        queue: WorkerQueue,
        executor: Executor,
        patience: Patience,
        clock: Clock,
        stop: Callable[[Held, Outcome], None],
        pause_s: float,
    ) -> None:
        self._queue = queue
        self._executor = executor
        self._patience = patience
        self._clock = clock
        self._stop = stop
        self._pause_s = pause_s
        self._wanting: dict[str, tuple[Held, float]] = {}  # by request id: not to be asked for before this moment
        self._wake = asyncio.Event()

    def begin(self, held: Held) -> None:
        """It was submitted. What an earlier attempt delivered is covered again by the first extension."""
        held.covered = held.job.output_covered
        held.delivered = sum([len(ids) for ids in held.job.emitted_ids])
        self.look(held)

    def look(self, held: Held) -> None:
        """Something of it was put out: it may be time to ask for more."""
        if held.covered and held.delivered >= ASK_AT * held.covered and held.covered < _most(held):
            known = self._wanting.get(held.job.request_id)
            if known is None or known[0] is not held:
                self._wanting[held.job.request_id] = (held, 0.0)
                self._wake.set()

    async def run(self) -> None:
        while True:
            now_s = self._clock.monotonic_s()
            self._wanting = {name: entry for name, entry in self._wanting.items() if not entry[0].over}
            due = [held for held, from_s in self._wanting.values() if from_s <= now_s][:EXTENSIONS_PER_CALL]
            if due:
                await self._ask(due)
                continue
            self._wake.clear()
            next_s = min([from_s for _, from_s in self._wanting.values()], default=None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if next_s is None else next_s - now_s):
                    await self._wake.wait()

    async def _ask(self, due: list[Held]) -> None:
        dry = [held.delivered >= held.covered for held in due]
        extensions = [
            Extension(held.job.request_id, held.job.attempt, held.worker_id, _next_slice(held)) for held in due
        ]
        answers = await self._patience.attempt("extend", partial(self._queue.extend, extensions))
        if answers is None:  # what is not covered is withheld meanwhile
            await asyncio.sleep(self._pause_s)
            return
        for held, was_dry, answer in zip(due, dry, answers, strict=True):
            if not held.over:
                self._heard(held, answer, was_dry=was_dry)

    def _heard(self, held: Held, answer: Extended, *, was_dry: bool) -> None:
        request_id = held.job.request_id
        if not answer.accepted:  # its finish will be refused, too; that takes it off the worker's list
            self._stop(held, Outcome.CANCELLED)
            return
        gained = answer.covered_tokens > held.covered
        if gained:
            held.covered, held.dry_refusals = answer.covered_tokens, 0
            self._executor.cover(request_id, held.covered)
        elif was_dry and answer.refused_by != WAITS_FOR:
            held.dry_refusals += 1
        if gained and not answer.refused_by:
            del self._wanting[request_id]
            self.look(held)
        elif held.dry_refusals >= DRY_REFUSALS_MAX:
            held.ended_by = answer.refused_by
            self._stop(held, Outcome.FINISHED)
        else:
            self._wanting[request_id] = (held, self._clock.monotonic_s() + self._pause_s)


def choice_count(job: Job) -> int:
    return 1 if job.sampling is None else job.sampling.n


def _most(held: Held) -> int:
    sampling = held.job.sampling
    return 0 if sampling is None else sampling.max_tokens * sampling.n


def _next_slice(held: Held) -> int:
    return min(max(held.covered, held.delivered) + SLICE_TOKENS * choice_count(held.job), _most(held))
