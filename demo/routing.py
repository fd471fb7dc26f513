"""Which experts the tokens of a mixture of experts go to, by domain and layer, and the loss that evens them out."""

from collections.abc import Mapping, Sequence

import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from demo.examples import Example
from demo.rows import encode
from demo.tiers import CHOSEN, Model


def imbalance(router_logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean over the layers of Mixtral's load-balancing loss: 2 where all experts are used alike.

    `router_logits` are [tokens, experts] for each layer. The library's function adds all layers' counts up first, so
    that an expert which gets nothing in one layer is made up for by its number in another; hence one call for each.
    """
    losses = [load_balancing_loss_func((layer,), layer.shape[1], CHOSEN) for layer in router_logits]
    return torch.stack([torch.as_tensor(loss) for loss in losses]).mean()


def expert_shares(model: Model, examples: Sequence[Example]) -> Mapping[str, torch.Tensor]:
    """By domain, and for `all` of them: [layers, experts], the share of tokens' choices, each layer adding up to 1."""
    config = model.config
    counts: dict[str, torch.Tensor] = {}
    for example in examples:
        ids = torch.tensor([encode(example).ids])
        with torch.no_grad():
            logits = model(ids, output_router_logits=True).router_logits
        chosen = torch.stack([layer.topk(config.num_experts_per_tok).indices.flatten() for layer in logits])
        count = torch.stack([torch.bincount(layer, minlength=config.num_local_experts) for layer in chosen])
        for key in ("all", example.domain):
            counts[key] = counts.get(key, torch.zeros_like(count)) + count
    return {key: count / count.sum(1, keepdim=True) for key, count in counts.items()}


def extremes(shares: torch.Tensor) -> tuple[float, float]:
    """The smallest and the largest share of any expert in any layer, as multiples of the mean share."""
    relative = shares * shares.shape[1]
    return float(relative.min()), float(relative.max())
