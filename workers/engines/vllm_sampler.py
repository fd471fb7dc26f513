"""Our sampling inside vLLM: it runs where vLLM samples, and leaves one token that can be drawn.

vLLM alone would draw from a generator that begins anew with each request, count an earlier attempt's tokens as prompt,
and hold an answer to its grammar only from its first token on. With the draws of workers.engines.sampling a seed gives
the same text as in any other engine, and an answer continues where an earlier attempt stopped.
"""

from dataclasses import dataclass
from typing import Any

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from core.wire import Sampling, from_map
from workers.engines.grammar import Grammars
from workers.engines.sampling import Draw, choose
from workers.text import Vocabulary

KEY = "tramontane"  # in a request's extra_args and in the engine's additional_config


@dataclass(slots=True)
class _Row:
    """`output_ids` is vLLM's own list, which grows with each step; `drawn` of it are known to the draw."""

    draw: Draw
    output_ids: list[int]
    drawn: int = 0

    def catch_up(self) -> Draw:
        for token_id in self.output_ids[self.drawn :]:
            self.draw.append(token_id)
        self.drawn = len(self.output_ids)
        return self.draw


class Sampler(LogitsProcessor):  # type: ignore[misc]  # vLLM is not installed where types are checked
    """After it the largest score of each row is the token that was drawn; vLLM itself is told to be greedy."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        del device, is_pin_memory
        given: dict[str, Any] = vllm_config.additional_config[KEY]
        self._eos_ids = tuple(given["eos_ids"])
        vocabulary_size = vllm_config.model_config.get_vocab_size()
        self._grammars = Grammars(Vocabulary.load(given["tokenizer"]), self._eos_ids, vocabulary_size)
        self._rows: dict[int, _Row] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self._rows, batch_update, self._begin)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        if self._rows:  # a trial run of vLLM's has none
            choose(logits, [self._rows[row].catch_up() for row in range(len(self._rows))], self._eos_ids)
        return logits

    def _begin(self, params: SamplingParams, prompt_ids: list[int] | None, output_ids: list[int]) -> _Row:
        """Also for a request that vLLM had put aside: its output is there already."""
        given: dict[str, Any] = params.extra_args[KEY]
        assert prompt_ids is not None
        end = len(prompt_ids) - given["emitted"]
        emitted_ids = prompt_ids[end:]
        grammar: str | None = given["grammar"]
        constraint = None if grammar is None else self._grammars.begin(grammar, emitted_ids)
        sampling = from_map(Sampling, dict(given["sampling"]))
        draw = Draw(sampling, given["request_id"], given["choice"], emitted_ids, prompt_ids[:end], constraint)
        return _Row(draw, output_ids)


def extra_args(
    request_id: str,
    choice: int,
    sampling: dict[str, Any],
    emitted: int,
    grammar: str | None,
    count_experts_as: str | None,
) -> dict[str, Any]:
    """What a request carries to the sampler, and to the worker. `sampling` are the fields of core.wire.Sampling;
    `emitted` of its prompt's last tokens are output of an earlier attempt; under `count_experts_as` the worker keeps
    how its experts were chosen.
    """
    given = {
        "request_id": request_id,
        "choice": choice,
        "sampling": sampling,
        "emitted": emitted,
        "grammar": grammar,
        "count_experts_as": count_experts_as,
    }
    return {KEY: given}
