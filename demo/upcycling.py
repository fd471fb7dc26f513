"""The weights with which a tier starts that goes on from another's: more pieces, and experts out of a dense layer.

Sparse upcycling, as in Komatsuzaki et al., arXiv:2212.05055, with experts that are parts of the dense layer: He et al.,
arXiv:2410.07524, whose "virtual group initialization" is what the pairs below are.
"""

from collections.abc import Mapping

import torch

from demo.rows import Pieces
from demo.tiers import CHOSEN, Shape

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
NOISE = 0.02  # of a matrix's own spread: what lets two copies of a part become different
ROUTER_SPREAD = 0.02

Weights = Mapping[str, torch.Tensor]


def inherit(weights: Weights, pieces: Pieces, heir_pieces: Pieces, heir: Shape) -> dict[str, torch.Tensor]:
    """`weights` over `pieces`, as those of an heir of the same hidden size, layers and heads over its own pieces.

    A piece that is new gets the row that stood for all unknown ones, and some noise. Where the heir has experts and
    `weights` have a dense layer, each expert is one half of it: the experts 2k and 2k + 1 hold the two halves and are
    first in the router's eyes together, so that the heir starts by saying what its parent says.
    """
    own = {name: value for name, value in weights.items() if ".mlp." not in name}
    rows = weights[EMBEDDING]
    own[EMBEDDING] = rows[pieces.numbers(heir_pieces.ids)]
    new = pieces.numbers(heir_pieces.ids) == 0
    new[0] = False
    own[EMBEDDING][new] += torch.randn(int(new.sum()), rows.shape[1]) * rows.std()
    own[HEAD] = own[EMBEDDING]
    dense = heir.experts and any(name.endswith("mlp.gate_proj.weight") for name in weights)
    if not dense:
        return own | {name: value for name, value in weights.items() if ".mlp." in name}
    for layer in range(heir.layers):
        own |= _experts(weights, f"model.layers.{layer}.mlp", heir)
    return own


def _experts(weights: Weights, layer: str, heir: Shape) -> dict[str, torch.Tensor]:
    gate, up, down = (weights[f"{layer}.{name}_proj.weight"] for name in ("gate", "up", "down"))
    halves = [slice(half * heir.width, (half + 1) * heir.width) for half in range(CHOSEN)]
    parts = [halves[expert % CHOSEN] for expert in range(heir.experts)]
    into = torch.stack([torch.cat([gate[part], up[part]]) for part in parts])
    # The weights of the two chosen experts add up to 1: each half counts half.
    out = torch.stack([CHOSEN * down[:, part] for part in parts])
    router = torch.randn(heir.experts // CHOSEN, heir.hidden) * ROUTER_SPREAD
    return {
        f"{layer}.gate.weight": router.repeat_interleave(CHOSEN, 0),
        f"{layer}.experts.gate_up_proj": _noisy(into),
        f"{layer}.experts.down_proj": _noisy(out),
    }


def _noisy(value: torch.Tensor) -> torch.Tensor:
    return value + torch.randn(value.shape) * value.std() * NOISE
