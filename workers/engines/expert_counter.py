"""Counts how a Mixtral's routers choose, for those requests of a batch that are sampled.

`begin` and `take` may be called from any thread; the rest runs in the one that steps the model.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers.models.mixtral.modeling_mixtral import MixtralTopKRouter

from core.experts import ExpertCounts

_LAYER = re.compile(r"\blayers\.(\d+)\.")

Rows = Sequence[tuple[str, int]]  # of a step's batch: the key of each request and how many rows it has, in order


@dataclass(slots=True)
class _Tally:
    """`counts`: layers, experts; on the model's device."""

    counts: torch.Tensor | None = None


class ExpertCounter:
    """`batch` tells the rows of the step that runs. While nothing is sampled a step costs a look at an empty dict for
    each layer.
    """

    def __init__(self, layers: Sequence[int], experts: int, batch: Callable[[], Rows]) -> None:
        self._layers = tuple(layers)
        self._experts = experts
        self._batch = batch
        self._tallies: dict[str, _Tally] = {}  # at most one for each request in work
        self._chosen: list[torch.Tensor] = []

    @classmethod
    def watch(cls, model: nn.Module, batch: Callable[[], Rows]) -> "ExpertCounter | None":
        """Listens to the model's routers; None if it has none."""
        routers = {name: part for name, part in model.named_modules() if isinstance(part, MixtralTopKRouter)}
        if not routers:
            return None
        counter = cls([_layer_of(name) for name in routers], next(iter(routers.values())).num_experts, batch)
        for number, router in enumerate(routers.values()):
            router.register_forward_hook(counter._listener(number))
        return counter

    def begin(self, key: str) -> None:
        self._tallies[key] = _Tally()

    def take(self, key: str) -> ExpertCounts | None:
        """What was counted, once; None if nothing was."""
        tally = self._tallies.pop(key, None)
        if tally is None or tally.counts is None:
            return None
        return ExpertCounts(self._layers, tuple(tuple(row) for row in tally.counts.tolist()))

    def _listener(self, number: int) -> Callable[..., None]:
        last = len(self._layers) - 1

        def chosen(
            _router: nn.Module, _inputs: object, output: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
        ) -> None:
            if not self._tallies:
                return
            if number == 0:
                self._chosen.clear()
            self._chosen.append(output[2])
            if number == last and len(self._chosen) == len(self._layers):  # not if sampling began in mid-step
                self._count()

        return chosen

    def _count(self) -> None:
        """A whole step at once, so that nobody ever sees a part of one."""
        chosen = torch.stack(self._chosen)  # layers, rows, experts of each token
        self._chosen.clear()
        start = 0
        for key, rows in self._batch():
            tally = self._tallies.get(key)
            if tally is not None:
                part = chosen[:, start : start + rows].flatten(1)
                new = torch.zeros((len(self._layers), self._experts), dtype=torch.int64, device=part.device)
                new.scatter_add_(1, part, torch.ones_like(part))
                tally.counts = new if tally.counts is None else tally.counts + new
            start += rows


def _layer_of(name: str) -> int:
    found = _LAYER.search(f"{name}.")
    assert found is not None, f"{name} lies in a layer"
    return int(found[1])
