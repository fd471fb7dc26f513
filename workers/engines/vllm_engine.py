"""The engine on vLLM: its AsyncLLM in this process, what computes in a process of vLLM's own beneath it."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from structlog.stdlib import BoundLogger
from vllm import SamplingParams
from vllm.inputs.engine import tokens_input
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.loggers import StatLoggerBase

from core.catalog import Tier
from core.clock import Clock
from core.experts import ExpertCounts
from core.wire import BATCH, Job, TokenLogprob, to_map
from workers.engines.base import (
    BAD_GRAMMAR,
    FAILED,
    LOST_GRAMMAR,
    NOT_RUNNING,
    RUNS_ALREADY,
    ChoiceEnd,
    EngineFailedError,
    EngineStats,
    Output,
    Reason,
    Tokens,
    choice_count,
    emitted,
    room_tokens,
    routed,
    unservable,
)
from workers.engines.grammar import Grammars
from workers.engines.vllm_args import engine_config, eos_ids
from workers.engines.vllm_sampler import extra_args
from workers.text import Vocabulary

CLOSE_S = 1.5  # then it is killed; a work process gives all its engines five seconds
LOOK_S = 1.0
INTERACTIVE_PRIORITY, BATCH_PRIORITY = 0, 1  # the smaller one goes first


@dataclass(slots=True)
class _Open:
    """A choice under way. `token_ids` is what came of it, kept only where a grammar is to be checked at its end. With
    `count_experts` vLLM's process counts under `key`.
    """

    job: Job
    choice: int
    tokens_max: int
    key: str
    count_experts: bool
    task: asyncio.Task[None] | None = None
    token_ids: list[int] = field(default_factory=list)
    cached_tokens: int = 0


class _StepClock(StatLoggerBase):  # type: ignore[misc]  # vLLM is not installed where types are checked
    """Told of each of vLLM's steps, those too that bring no token."""

    def __init__(self, stepped: Callable[[], None]) -> None:
        self._stepped = stepped

    def record(self, *_: object, **__: object) -> None:
        self._stepped()

    def log_engine_initialized(self) -> None: ...


class VllmEngine:
    """Weights are a folder or a hub id. Every choice of a job is a request of its own to vLLM. The prefix cache keeps
    organisations apart: none could time what another has asked.
    """

    def __init__(self, tier: Tier, weights: Path | str, clock: Clock, log: BoundLogger) -> None:
        self._tier = tier
        self._weights = str(weights)
        self._clock = clock
        self._log = log
        self._llm: AsyncLLM | None = None
        self._grammars: Grammars | None = None
        self._vocabulary = 0
        self._eos_ids: tuple[int, ...] = ()
        self._has_experts = False
        self._serial = itertools.count()
        self._open: dict[str, dict[int, _Open]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._outbox: list[Output] = []  # bounded by the slots and what each may still generate
        self._wake = asyncio.Event()
        self._last_step_s = clock.monotonic_s()
        self._failed = False
        self._closed = False

    async def start(self) -> None:
        """In a thread that nobody waits for: a process that is told to end while it loads ends at once."""
        loaded: Future[AsyncLLM] = Future()
        loaded.set_running_or_notify_cancel()  # so that nobody takes it back before it is settled
        threading.Thread(target=_settle, args=(loaded, self._load), name="vllm-load", daemon=True).start()
        self._llm = await asyncio.wrap_future(loaded)

    def submit(self, job: Job, *, count_experts: bool = False) -> None:
        if not self._open:
            self._last_step_s = self._clock.monotonic_s()
        problem = RUNS_ALREADY if job.request_id in self._open else self._problem(job)
        if problem is not None:
            for choice in range(choice_count(job)):
                self._put(ChoiceEnd(job.request_id, choice, "error", problem))
            return
        for choice in range(choice_count(job)):
            room = room_tokens(job, choice, self._tier.context_tokens)
            if room <= 0:
                self._put(ChoiceEnd(job.request_id, choice, "length"))
                continue
            key = f"{job.request_id}#{choice}#{next(self._serial)}"
            entry = _Open(job, choice, room, key, count_experts and self._has_experts)
            self._open.setdefault(job.request_id, {})[choice] = entry
            entry.task = asyncio.create_task(self._serve(entry))
            self._tasks.add(entry.task)
            entry.task.add_done_callback(self._tasks.discard)
            if entry.count_experts:
                entry.task.add_done_callback(partial(self._ask_experts, entry))

    def abort(self, request_id: str, choice: int | None = None) -> None:
        for entry in tuple(self._open.get(request_id, {}).values()):
            if choice in {None, entry.choice}:
                self._end(entry, "aborted")
                assert entry.task is not None
                entry.task.cancel()

    async def steps(self) -> AsyncIterator[list[Output]]:
        """Raises EngineFailedError, after the errors of all that was open, when vLLM's process has died."""
        while not self._closed:
            self._look()
            if self._outbox:
                outputs, self._outbox = self._outbox, []
                yield outputs
                continue
            if self._failed:
                raise EngineFailedError("vLLM's process has ended")
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()

    def stats(self) -> EngineStats:
        return EngineStats(running=len(self._open), last_step_s=self._last_step_s)

    async def close(self) -> None:
        self._closed = True
        self._wake.set()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        llm, self._llm = self._llm, None
        if llm is not None:
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(llm.shutdown, CLOSE_S)

    def _load(self) -> AsyncLLM:
        config = engine_config(self._tier, self._weights)
        self._eos_ids = eos_ids(config)
        self._vocabulary = config.model_config.get_vocab_size()
        self._has_experts = config.model_config.is_moe
        self._grammars = Grammars(Vocabulary.load(self._tier.tokenizer), self._eos_ids, self._vocabulary)
        return AsyncLLM.from_vllm_config(
            config, stat_loggers=[lambda *_: _StepClock(self._stepped)], disable_log_stats=True
        )

    def _stepped(self) -> None:
        self._last_step_s = self._clock.monotonic_s()

    def _problem(self, job: Job) -> str | None:
        """Why the job cannot be served, or None."""
        if self._llm is None:
            return NOT_RUNNING
        self._look()
        return FAILED if self._failed else unservable(job, self._tier.context_tokens, self._vocabulary)

    async def _serve(self, entry: _Open) -> None:
        """One choice from its first token to its last; ends it unless it was aborted, which cancels this."""
        try:
            if not await self._has_good_grammar(entry):
                self._end(entry, "error", BAD_GRAMMAR)
                return
            await self._generate(entry)
        except EngineDeadError:
            self._die()
        except Exception as error:  # noqa: BLE001 - whatever vLLM raises is the end of this choice, and of it alone
            self._log.exception("the engine failed on a request", request_id=entry.job.request_id, error=repr(error))
            self._end(entry, "error", FAILED)

    async def _has_good_grammar(self, entry: _Open) -> bool:
        """In a thread, for a large one takes long. vLLM's process compiles it again."""
        if entry.job.grammar is None:
            return True
        assert self._grammars is not None
        before = emitted(entry.job, entry.choice)
        return await asyncio.to_thread(self._grammars.begin, entry.job.grammar, before) is not None

    async def _generate(self, entry: _Open) -> None:
        job, before = entry.job, emitted(entry.job, entry.choice)
        assert self._llm is not None
        prompt = tokens_input([*job.prompt_ids, *before], cache_salt=job.organisation)
        priority = BATCH_PRIORITY if job.band == BATCH else INTERACTIVE_PRIORITY
        async for output in self._llm.generate(prompt, self._params(entry, len(before)), entry.key, priority=priority):
            self._receive(entry, output)

    def _params(self, entry: _Open, emitted_tokens: int) -> SamplingParams:
        """Greedy to vLLM: the sampler leaves one token that can be drawn."""
        job = entry.job
        assert job.sampling is not None
        ours = to_map(replace(job.sampling, stop=(), logprobs=None))
        return SamplingParams(
            temperature=0.0,
            max_tokens=entry.tokens_max,
            stop_token_ids=list(self._eos_ids),
            logprobs=job.sampling.logprobs,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args=extra_args(
                job.request_id,
                entry.choice,
                ours,
                emitted_tokens,
                job.grammar,
                entry.key if entry.count_experts else None,
            ),
        )

    def _receive(self, entry: _Open, output: RequestOutput) -> None:
        [part] = output.outputs
        token_ids = [int(token_id) for token_id in part.token_ids]
        reports = _reports(entry.job, part, token_ids)
        stopped = part.finish_reason == "stop"
        if stopped and token_ids and token_ids[-1] in self._eos_ids:
            token_ids.pop()
        if entry.job.grammar is not None:
            entry.token_ids += token_ids
        known = min(entry.job.prompt_tokens, len(entry.job.prompt_ids))
        entry.cached_tokens = min(output.num_cached_tokens or 0, known)
        if token_ids:
            self._put(Tokens(entry.job.request_id, entry.choice, tuple(token_ids), reports[: len(token_ids)]))
        if part.finish_reason is None:
            return
        if part.finish_reason not in {"stop", "length"}:
            self._end(entry, "error", FAILED)
        else:
            self._finish(entry, stopped=stopped)

    def _finish(self, entry: _Open, *, stopped: bool) -> None:
        """The last token within max_tokens may be the grammar's last."""
        if entry.job.grammar is not None:
            assert self._grammars is not None
            ids = (*emitted(entry.job, entry.choice), *entry.token_ids)
            constraint = self._grammars.begin(entry.job.grammar, ids)
            if constraint is None:
                self._end(entry, "error", LOST_GRAMMAR)
                return
            stopped = stopped or constraint.complete
        self._end(entry, "stop" if stopped else "length")

    def _ask_experts(self, entry: _Open, _ended: asyncio.Task[None]) -> None:
        """After its last step, and after vLLM was told of an abort: nothing more will be counted for it."""
        if not self._closed and not self._failed:
            task = asyncio.create_task(self._tell_experts(entry))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tell_experts(self, entry: _Open) -> None:
        """Each card answers for the layers that it has."""
        assert self._llm is not None
        try:
            answers: list[dict[int, list[int]]] = await self._llm.collective_rpc("take_experts", args=(entry.key,))
        except EngineDeadError:
            self._die()
            return
        by_layer = {int(layer): tuple(counts) for answer in answers for layer, counts in answer.items()}
        if by_layer:
            layers = tuple(sorted(by_layer))
            experts = ExpertCounts(layers, tuple(by_layer[layer] for layer in layers))
            self._put(routed(entry.job, entry.choice, experts))

    def _look(self) -> None:
        """Of its death vLLM tells only requests, and an idle engine has none."""
        if self._llm is not None and self._llm.errored:
            self._die()

    def _die(self) -> None:
        if self._failed or self._closed:
            return
        self._log.error("the engine failed", tier=self._tier.name)
        self._failed = True
        for choices in tuple(self._open.values()):
            for entry in tuple(choices.values()):
                self._end(entry, "error", FAILED)
        self._wake.set()

    def _end(self, entry: _Open, reason: Reason, error: str | None = None) -> None:
        """The first one counts."""
        choices = self._open.get(entry.job.request_id, {})
        if choices.get(entry.choice) is not entry:
            return
        del choices[entry.choice]
        if not choices:
            del self._open[entry.job.request_id]
        self._put(ChoiceEnd(entry.job.request_id, entry.choice, reason, error, entry.cached_tokens))

    def _put(self, output: Output) -> None:
        self._outbox.append(output)
        self._wake.set()


def _settle(loaded: Future[AsyncLLM], load: Callable[[], AsyncLLM]) -> None:
    try:
        loaded.set_result(load())
    except BaseException as error:  # noqa: BLE001 - raised where it is awaited
        loaded.set_exception(error)


def _reports(job: Job, part: CompletionOutput, token_ids: list[int]) -> tuple[TokenLogprob, ...]:
    """At each place vLLM reports the token itself and the likeliest, by id."""
    assert job.sampling is not None
    if job.sampling.logprobs is None:
        return ()
    out = []
    for token_id, place in zip(token_ids, part.logprobs, strict=True):
        entries = sorted(((i, one.logprob) for i, one in place.items()), key=lambda entry: -entry[1])
        out.append((place[token_id].logprob, tuple(entries[: job.sampling.logprobs])))
    return tuple(out)
