"""All that we know about the inside of Hugging Face's continuous batching manager (transformers 5.23), in one file.

The manager steps its model in a thread of its own. It runs greedy; `_Sampler` is the one logits processor, which picks
each request's token. What a step yields crosses into the event loop as one call.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor
from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager, OutputRouter
from transformers.utils import logging as transformers_logging

from core.clock import Clock
from core.experts import ExpertCounts
from workers.engines.expert_counter import ExpertCounter, Rows
from workers.engines.sampling import Draw, choose

PAGE_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bounds of one manager. With torch's own attention a mask of batch_tokens x (kv_tokens + batch_tokens) values is
    held all the time, which is why both are bounded and not left to fill the memory.
    """

    batch_tokens: int
    kv_tokens: int
    threads: int


@dataclass(frozen=True, slots=True)
class Progress:
    """A request after a step: all token ids generated so far (an end-of-sequence id included), and whether it ended.
    `experts` at its end, if they were to be counted.
    """

    key: str
    token_ids: list[int]
    is_finished: bool
    error: str | None
    experts: ExpertCounts | None = None


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Rides on the manager's request, and is copied with it when the request has to give up its cache for a while."""

    draw: Draw
    prompt_tokens: int


class _Sampler(ContinuousBatchingLogitsProcessor):  # type: ignore[misc]  # the library is untyped
    """Called twice per step in the manager's thread: `prepare_tensor_args` while it builds the batch, then `__call__`
    with one row of scores for each request that gets a token, in the same order.
    """

    supported_kwargs: dict[str, type] = {"drawn": _Drawn}  # noqa: RUF012 - the library's contract
    ignored_kwargs: tuple[str, ...] = ()

    def __init__(self, eos_ids: Sequence[int], clock: Clock) -> None:
        self.step_begun_s = clock.monotonic_s()
        self._clock = clock
        self._eos_ids = eos_ids
        self._draws: list[Draw] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        self.step_begun_s = self._clock.monotonic_s()
        self._draws = [_follow(request.state) for request in requests_with_new_token]
        return torch.zeros(len(self._draws), dtype=torch.int32)  # the library wants a number for each; we need none

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        choose(scores, self._draws, self._eos_ids)
        return scores


def _follow(state: Any) -> Draw:
    """The request's draw, after telling it the token of the step before. A request that had to give up its cache comes
    back with what it generated as part of its prompt.
    """
    drawn: _Drawn = state.logit_processor_kwargs["drawn"]
    put_out = len(state.initial_tokens) + len(state.generated_tokens) - drawn.prompt_tokens
    if put_out > drawn.draw.position:
        drawn.draw.append((state.generated_tokens or state.initial_tokens)[-1])
    assert put_out == drawn.draw.position, "one token per step"
    return drawn.draw


class _Router(OutputRouter):  # type: ignore[misc]  # the library is untyped
    """Brings a step's outputs into the event loop in one call; no handler is kept per request."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sink: Callable[[list[Progress]], None],
        counter: ExpertCounter | None,
    ) -> None:
        super().__init__()
        self._loop = loop
        self._sink = sink
        self._counter = counter

    def deliver(self, output: Any) -> None:
        self.deliver_batch([output])

    def deliver_batch(self, outputs: list[Any]) -> None:
        step = [self._progress(out) for out in outputs]
        self._loop.call_soon_threadsafe(self._sink, step)

    def _progress(self, out: Any) -> Progress:
        finished = out.is_finished()
        ended = finished or out.error is not None
        experts = self._counter.take(out.request_id) if ended and self._counter is not None else None
        return Progress(out.request_id, out.generated_tokens, finished, out.error, experts)


class _Manager(ContinuousBatchingManager):  # type: ignore[misc]  # the library is untyped
    """With a thread that does not keep a process alive when it hangs, and that has its own number of torch threads."""

    def __init__(self, threads: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._threads = threads

    def rows(self) -> Rows:
        """Of the step that runs."""
        batch = self.batch_processor.inputs_and_outputs.requests_in_batch
        return [(future.state.request_id, future.query_length) for future in batch]

    def start(self) -> None:
        self.background_thread_status.clear()
        self._generation_thread = threading.Thread(target=self._run_generation_loop, name="engine", daemon=True)
        self._generation_thread.start()

    def _run_generation_loop(self) -> None:
        torch.set_num_threads(self._threads)
        super()._run_generation_loop()


class Batcher:
    """The manager behind plain types. `load` and `stop` block; the rest is quick and belongs to the event loop."""

    def __init__(self, manager: _Manager, sampler: _Sampler, counter: ExpertCounter | None) -> None:
        self._manager = manager
        self._sampler = sampler
        self._counter = counter

    @classmethod
    def load(
        cls,
        weights: str,
        device: str,
        dtype: str,
        sizes: Sizes,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        sink: Callable[[list[Progress]], None],
    ) -> "Batcher":
        """Load the model and start the thread; `sink` is called in `loop` once per step that yielded something."""
        transformers_logging.disable_progress_bar()  # a service's log is no terminal
        model = AutoModelForCausalLM.from_pretrained(weights, dtype=getattr(torch, dtype), attn_implementation="sdpa")
        model.to(device)
        eos_ids = _eos_ids(model)
        manager = _Manager(
            threads=sizes.threads,
            model=model,
            generation_config=GenerationConfig(do_sample=False, eos_token_id=eos_ids),
            continuous_batching_config=_config(sizes),
        )
        sampler = _Sampler(eos_ids, clock)
        processors = manager.logit_processor
        processors.logits_processor.append(sampler)
        processors._retrieve_processors_kwargs()  # noqa: SLF001 - it read them before ours was there
        processors.tensors_required = 1  # a row of arguments is written for each processor, also where it needs none
        processors.do_processing = True
        counter = ExpertCounter.watch(model, manager.rows)
        manager.output_router = _Router(loop, sink, counter)
        manager.warmup()  # takes the memory here, where a failure is the caller's, not in the thread
        manager.start()
        return cls(manager, sampler, counter)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return tuple(self._manager.generation_config.eos_token_id)

    @property
    def vocabulary(self) -> int:
        """Token ids are below it."""
        return int(self._manager.model.config.get_text_config().vocab_size)

    @property
    def step_begun_s(self) -> float:
        """On the clock's monotonic_s: when the last step began."""
        return self._sampler.step_begun_s

    @property
    def failure(self) -> str | None:
        """Why nothing will be generated any more, or None."""
        status = self._manager.background_thread_status
        if status.fatal_error is not None:
            return repr(status.fatal_error)
        if self._manager.is_running() and status.can_accept_new_requests() is None:
            return None
        return "the generation thread has stopped"

    def add(
        self, key: str, prompt_ids: Sequence[int], draw: Draw, tokens_max: int, *, count_experts: bool = False
    ) -> None:
        """`prompt_ids` end with what the draw's choice has already put out; `key` is never used twice."""
        if count_experts and self._counter is not None:
            self._counter.begin(key)
        self._manager.add_request(
            list(prompt_ids),
            request_id=key,
            max_new_tokens=tokens_max,
            streaming=True,
            drawn=_Drawn(draw, len(prompt_ids) - draw.position),
        )

    def cancel(self, key: str) -> ExpertCounts | None:
        """Free its slot before the next step. A step that runs may still report it; no last report follows. Answers
        how its experts were chosen up to the last step that is over.
        """
        self._manager.cancel_request(key)
        return None if self._counter is None else self._counter.take(key)

    def stop(self, timeout_s: float) -> None:
        self._manager.stop(block=True, timeout=timeout_s, hard_stop=True)


def _config(sizes: Sizes) -> ContinuousBatchingConfig:
    return ContinuousBatchingConfig(
        page_size=PAGE_TOKENS,
        num_blocks=-(-sizes.kv_tokens // PAGE_TOKENS),
        max_batch_tokens=sizes.batch_tokens,
        max_requests_per_batch=sizes.batch_tokens,
        allow_block_sharing=False,  # its prefix cache knows no tenants: one could time what another has asked
        use_async_batching=False,  # it plans a step before the last one's tokens are known; penalties need them
        use_cuda_graph=False,  # the sampler is Python
        auto_switch_to_flash=False,  # it would fetch kernels from the hub
    )


def _eos_ids(model: Any) -> list[int]:
    eos = model.generation_config.eos_token_id
    if eos is None:
        return []
    return [eos] if isinstance(eos, int) else list(eos)
