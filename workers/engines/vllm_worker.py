"""vLLM's own worker, which also counts how experts are chosen, for the requests that ask for it.

vLLM hands routed experts out (`enable_return_routed_experts`) only from its second model runner, which has another
interface for samplers than ours and, on a CPU, wants Triton. What captures them there belongs to neither runner:
RoutedExpertsCapturer fills a buffer by calls that each router makes, within CUDA graphs too. Here the first one has it.
"""

import logging
from typing import Any

import torch
from vllm.model_executor.layers.fused_moe.routed_experts_capturer import (
    RoutedExpertsCapturer,
    bind_routed_experts_capturer,
)
from vllm.platforms import current_platform
from vllm.v1.core.sched.output import SchedulerOutput

from workers.engines.vllm_sampler import KEY

TALLIES_MAX = 1_024  # requests in work that are counted, and those whose counts nobody has taken yet
NO_EXPERT = -1  # stays in the buffer where a layer has no router here
_log = logging.getLogger(__name__)

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as PlatformWorker
else:
    from vllm.v1.worker.gpu_worker import Worker as PlatformWorker


class CountingWorker(PlatformWorker):  # type: ignore[misc]  # vLLM is not installed where types are checked
    """Named as vLLM's `worker_cls`. One for each card; with tensor parallelism all count the same, with pipeline
    parallelism each the layers that it has.
    """

    _capturer: RoutedExpertsCapturer | None = None

    def load_model(self, *arguments: Any, **options: Any) -> None:
        """Binds before graphs are captured."""
        super().load_model(*arguments, **options)
        self._tallies: dict[str, torch.Tensor] = {}  # by the key that the request carries: our layers, experts
        self._keys: dict[str, str] = {}  # vLLM's id of a request -> that key
        config = self.vllm_config.model_config
        if not config.is_moe:
            return
        try:
            capturer = RoutedExpertsCapturer(self.scheduler_config.max_num_batched_tokens, self.vllm_config)
            bind_routed_experts_capturer(self.get_model(), capturer)
        except ValueError as error:  # a kernel that tells nobody what it chose
            _log.warning("Experts are not counted: %s", error)
            return
        capturer.device_buffer.fill_(NO_EXPERT)
        self._capturer = capturer
        self._experts: int = config.get_num_experts()
        self._layers: list[int] = []  # those that this card has, once a step was seen

    def execute_model(self, scheduler_output: SchedulerOutput) -> Any:
        output = super().execute_model(scheduler_output)
        if self._capturer is not None:
            self._follow(scheduler_output)
            if self._keys and scheduler_output.total_num_scheduled_tokens:
                self._count(self._capturer, scheduler_output)
        return output

    def take_experts(self, key: str) -> dict[int, list[int]]:
        """By layer. Called over vLLM's collective_rpc."""
        tally = self._tallies.pop(key, None)
        return {} if tally is None else dict(zip(self._layers, tally.tolist(), strict=True))

    def _follow(self, scheduled: SchedulerOutput) -> None:
        for request_id in scheduled.finished_req_ids:
            self._keys.pop(request_id, None)
        for request in scheduled.scheduled_new_reqs:
            key = request.sampling_params.extra_args[KEY]["count_experts_as"]
            if key is not None:
                self._keys[request.req_id] = key

    def _count(self, capturer: RoutedExpertsCapturer, scheduled: SchedulerOutput) -> None:
        """The rows of a step lie in the order of the batch."""
        chosen = capturer.device_buffer  # rows, layers, experts of each token
        if not self._layers:
            self._layers = [layer for layer, first in enumerate(chosen[0, :, 0].tolist()) if first != NO_EXPERT]
        start = 0
        for request_id in self.model_runner.input_batch.req_ids:
            rows = scheduled.num_scheduled_tokens[request_id]
            key = self._keys.get(request_id)
            if key is not None:
                part = chosen[start : start + rows, self._layers].long().transpose(0, 1).flatten(1)
                new = torch.zeros((len(part), self._experts), dtype=torch.int64, device=part.device)
                new.scatter_add_(1, part, torch.ones_like(part))
                before = self._tallies.get(key)
                self._tallies[key] = new if before is None else before + new
            start += rows
        while len(self._tallies) > TALLIES_MAX:
            del self._tallies[next(iter(self._tallies))]
