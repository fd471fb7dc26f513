"""An engine's token ids as the queue's events: text, stop strings, finish reasons, counted usage."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from structlog.stdlib import BoundLogger

from core.queue.executor import Ended, ExecutorStats
from core.wire import Job, Piece
from workers.engines.base import Engine, Routed, Tokens
from workers.experts import ExpertReporter
from workers.requests import Request
from workers.text import Vocabulary


class Generator:
    """An Executor over an Engine. A choice that reaches a stop string is aborted alone; a choice that fails takes its
    whole request with it, for half an answer is not charged.
    """

    def __init__(
        self, engine: Engine, vocabulary: Vocabulary, log: BoundLogger, reporter: ExpertReporter | None = None
    ) -> None:
        """`reporter`, which becomes the generator's own, hears how experts were chosen."""
        self._reporter = reporter
        self._engine = engine
        self._vocabulary = vocabulary
        self._marked = vocabulary.with_tool_marker()
        self._log = log
        self._requests: dict[str, Request] = {}
        self._events: list[Piece | Ended] = []  # not yielded yet: of one engine step, and what was covered since
        self._wake = asyncio.Event()
        self._asked = asyncio.Event()

    async def start(self) -> None:
        await self._engine.start()

    def submit(self, job: Job) -> None:
        vocabulary = self._marked if job.tool_marker else self._vocabulary
        request = Request(job, vocabulary, partial(self._engine.abort, job.request_id), self._events)
        self._requests[job.request_id] = request
        if self._reporter is not None and self._reporter.wants(job.request_id):
            self._engine.submit(job, count_experts=True)
        else:
            self._engine.submit(job)
        for choice in request.stopped:  # the earlier attempt got as far as the stop string
            self._engine.abort(job.request_id, choice)

    def cover(self, request_id: str, output_tokens: int) -> None:
        request = self._requests.get(request_id)
        if request is not None:
            request.cover(output_tokens)
            self._told(request_id, request)

    def abort(self, request_id: str) -> None:
        self._engine.abort(request_id)
        request = self._requests.get(request_id)
        if request is not None:
            request.drop()
            self._told(request_id, request)

    async def steps(self) -> AsyncIterator[list[Piece | Ended]]:
        """Also between the engine's steps: what is covered late, or ends by an abort, waits for none."""
        pump = asyncio.create_task(self._pump())
        pump.add_done_callback(lambda _: self._wake.set())
        try:
            while True:
                self._asked.set()
                await self._wake.wait()
                self._wake.clear()
                if self._events:
                    events = self._events.copy()
                    self._events.clear()
                    yield events
                elif pump.done():
                    pump.result()
                    return
                if pump.done():
                    self._wake.set()
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    def stats(self) -> ExecutorStats:
        stats = self._engine.stats()
        return ExecutorStats(running=stats.running, last_step_s=stats.last_step_s)

    async def close(self) -> None:
        await self._engine.close()
        if self._reporter is not None:
            await self._reporter.close()

    async def _pump(self) -> None:
        """The engine's steps, each after the one before was taken, so that whoever takes them holds the engine back."""
        async for outputs in self._engine.steps():
            for output in outputs:
                if isinstance(output, Routed):
                    if self._reporter is not None:
                        self._reporter.put(output.sample)
                    continue
                request = self._requests.get(output.request_id)
                if request is None:
                    continue
                if isinstance(output, Tokens):
                    request.tokens(output)
                    continue
                if output.reason == "error":
                    self._log.warning("engine failed on a request", request_id=output.request_id, reason=output.error)
                request.end(output)
                if not request.open:
                    del self._requests[output.request_id]
            if self._events:
                self._wake.set()
                self._asked.clear()
                await self._asked.wait()

    def _told(self, request_id: str, request: Request) -> None:
        if not request.open:
            del self._requests[request_id]
        if self._events:
            self._wake.set()
