"""The embedding service's part of the take-renew-finish loop: many requests, one encoder, one thread for it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from core.catalog import Tier
from core.clock import Clock
from core.queue.executor import Ended, ExecutorStats
from core.wire import EMBED, End, Job, Piece, Usage
from embed.batching import Batcher, Item
from embed.encoders.base import Encoder

Result = TypeVar("Result")


@dataclass(slots=True)
class _Request:
    job: Job
    vectors: dict[int, bytes] = field(default_factory=dict)


class EmbeddingExecutor:
    """An `Executor`. While the encoder is busy requests gather; when it is free, what waits forms the next batch.

    If a batch fails its halves are tried again, down to the single texts at fault: only their requests fail.
    """

    def __init__(self, tier: Tier, encoder: Encoder, clock: Clock, log: structlog.stdlib.BoundLogger) -> None:
        self._tier = tier
        self._encoder = encoder
        self._clock = clock
        self._log = log
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"encode {tier.name}")
        self._batcher = Batcher(tier.batch_tokens_max)
        # All three are bounded by the caller, who submits no more than it has slots.
        self._open: dict[str, _Request] = {}
        self._arrived: list[_Request] = []
        self._ended: list[Piece | Ended] = []
        self._work = asyncio.Event()
        self._news = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._last_step_s = clock.monotonic_s()

    async def start(self) -> None:
        """SetupError if the weights do not fit the tier."""
        await self._in_thread(self._encoder.load)
        self._runner = asyncio.create_task(self._run())
        self._runner.add_done_callback(lambda _: self._news.set())

    def submit(self, job: Job) -> None:
        self.abort(job.request_id)
        if not self._open:
            self._last_step_s = self._clock.monotonic_s()
        request = _Request(job)
        self._open[job.request_id] = request
        if job.kind != EMBED or not job.texts:
            self._fail(request, "There is no text to embed.")
            return
        self._arrived.append(request)
        self._work.set()

    def cover(self, request_id: str, output_tokens: int) -> None:
        """Vectors are no output tokens: nothing is withheld."""

    def abort(self, request_id: str) -> None:
        request = self._open.get(request_id)
        if request is not None:
            self._end(_end(request.job))

    async def steps(self) -> AsyncIterator[list[Piece | Ended]]:
        """Raises what ended the encoder's task; ends after close."""
        assert self._runner is not None, "start comes first"
        while True:
            await self._news.wait()
            self._news.clear()
            ended, self._ended = self._ended, []
            if ended:
                yield ended
            if self._runner.done():
                if not self._runner.cancelled():
                    self._runner.result()
                return

    def stats(self) -> ExecutorStats:
        return ExecutorStats(running=len(self._open), last_step_s=self._last_step_s)

    async def close(self) -> None:
        """Does not wait for a pass that is under way."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._encoder.close()

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            if self._arrived:
                await self._line_up()
            batch = self._batcher.next_batch()
            if batch:
                await self._encode(batch)
            elif not self._arrived:
                self._work.clear()

    async def _line_up(self) -> None:
        """Count the texts that arrived, so that batches keep to the budget and no text is silently cut."""
        arrived, self._arrived = [request for request in self._arrived if self._is_open(request)], []
        if not arrived:
            return
        texts = [text for request in arrived for text in request.job.texts]
        counts = iter(await self._in_thread(lambda: self._isolate(self._encoder.count, texts)))
        for request in arrived:
            job = request.job
            counted = [(index, text, next(counts)) for index, text in enumerate(job.texts)]
            if not self._is_open(request):
                continue
            items = []
            for index, text, tokens in counted:
                if isinstance(tokens, Exception):
                    self._fail_text(request, index, tokens)
                    break
                if tokens > self._tier.context_tokens:
                    bound = self._tier.context_tokens
                    self._fail(request, f"The text at index {index} has {tokens} tokens, the most is {bound}.")
                    break
                items.append(Item(job.request_id, index, text, tokens))
            else:
                self._batcher.add(job.request_id, items)

    async def _encode(self, batch: Sequence[Item]) -> None:
        requests = [self._open[item.request_id] for item in batch]
        texts = [item.text for item in batch]
        vectors = await self._in_thread(lambda: self._isolate(self._encoder.encode, texts))
        for item, request, vector in zip(batch, requests, vectors, strict=True):
            if not self._is_open(request):
                continue
            if isinstance(vector, Exception):
                self._fail_text(request, item.index, vector)
                continue
            request.vectors[item.index] = vector
            if len(request.vectors) == len(request.job.texts):
                ordered = tuple(request.vectors[index] for index in range(len(request.vectors)))
                self._end(_end(request.job, vectors=ordered))

    def _isolate(self, call: Callable[[Sequence[str]], list[Result]], texts: Sequence[str]) -> list[Result | Exception]:
        """In the thread: an answer or a failure for each text. Takes 2 log2(n) calls to find one poisonous text."""
        try:
            return [result for _, result in zip(texts, call(texts), strict=True)]
        except Exception as error:  # noqa: BLE001 - whatever an encoder raises is handed to the request it belongs to
            if len(texts) == 1:
                return [error]
            half = len(texts) // 2
            return [*self._isolate(call, texts[:half]), *self._isolate(call, texts[half:])]
        finally:
            self._last_step_s = self._clock.monotonic_s()

    async def _in_thread(self, call: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _is_open(self, request: _Request) -> bool:
        """Aborted and failed ones are not, and an older attempt is another object."""
        return self._open.get(request.job.request_id) is request

    def _fail_text(self, request: _Request, index: int, error: Exception) -> None:
        # The type alone: a message may quote the text.
        self._log.warning("text_failed", request_id=request.job.request_id, index=index, error=type(error).__name__)
        self._fail(request, f"The text at index {index} could not be embedded.")

    def _fail(self, request: _Request, error: str) -> None:
        self._end(_end(request.job, error=error))

    def _end(self, end: End) -> None:
        self._batcher.drop(end.request_id)
        del self._open[end.request_id]
        self._ended.append(Ended(end, failed=end.error is not None))
        self._news.set()


def _end(job: Job, vectors: tuple[bytes, ...] = (), error: str | None = None) -> End:
    return End(job.request_id, job.attempt, usage=Usage(job.prompt_tokens), vectors=vectors, error=error)
