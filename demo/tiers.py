"""The shapes of the demo checkpoints, and how each is trained. 47.6 MB of bfloat16 for the three together."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from transformers import GenerationConfig, MistralConfig, MistralForCausalLM, MixtralConfig, MixtralForCausalLM

from demo.rows import BOS_ID, EOS_ID, VOCABULARY

POSITIONS_MAX = 2_048
CHOSEN = 2  # experts for each token
BALANCE_WEIGHT = 0.02

Model: TypeAlias = MistralForCausalLM | MixtralForCausalLM


@dataclass(frozen=True, slots=True)
class Shape:
    """Heads are of 32 dimensions, two of keys and values. `width` is of the feed-forward layer, or of one expert."""

    hidden: int
    width: int
    layers: int
    heads: int
    experts: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """`steps` is the length of the constant part. `start` is the tier whose weights are trained further, if any."""

    shape: Shape
    steps: int
    start: str | None = None
    rate: float = 4e-3


_DENSE = Shape(hidden=128, width=512, layers=6, heads=4)
_SPARSE = Shape(hidden=128, width=256, layers=6, heads=4, experts=8)

PLANS: Mapping[str, Plan] = MappingProxyType(
    {
        "mistral-tiny": Plan(_DENSE, steps=6_000),
        "mistral-small": Plan(_SPARSE, steps=12_000, start="mistral-tiny"),
        "mistral-medium": Plan(_SPARSE, steps=8_000, start="mistral-small"),
    }
)


def new_model(shape: Shape, vocabulary: int = VOCABULARY) -> Model:
    """With random weights from torch's generator."""
    shared = {
        "vocab_size": vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": POSITIONS_MAX,
        "sliding_window": None,
        # The same for both kinds, for one goes on from the other.
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
    }
    if shape.experts:
        routing = {"num_local_experts": shape.experts, "num_experts_per_tok": CHOSEN}
        model: Model = MixtralForCausalLM(MixtralConfig(**shared, **routing, router_aux_loss_coef=BALANCE_WEIGHT))
    else:
        model = MistralForCausalLM(MistralConfig(**shared))
    model.generation_config = GenerationConfig(bos_token_id=BOS_ID, eos_token_id=EOS_ID)
    return model
