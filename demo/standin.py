"""Stand-ins for trained checkpoints, where only the format counts: small Mistral and Mixtral models of random weights.

Everything but the weights is real: the file format, the architecture, the tokenizer, the special tokens. Tests run on
them, for they are made in a second and never stop by themselves.
"""

import shutil
from importlib.resources import files
from pathlib import Path

import mistral_common
import torch
from transformers import GenerationConfig, MistralConfig, MistralForCausalLM, MixtralConfig, MixtralForCausalLM
from transformers.utils import logging as transformers_logging

VOCABULARY = 32_000  # of mistral-common's v1 tokenizer
BOS_ID, EOS_ID = 1, 2
POSITIONS_MAX = 2_048
SEED = 2_312

# Wider initial weights than the library's 0.02: logits then differ enough for greedy and sampled text to vary.
_SHARED: dict[str, object] = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": POSITIONS_MAX,
    "tie_word_embeddings": True,
    "sliding_window": None,
    "head_dim": 32,  # the least that vLLM computes on a CPU
    "initializer_range": 0.1,
    "bos_token_id": BOS_ID,
    "eos_token_id": EOS_ID,
}
_SHAPES: dict[str, dict[str, int]] = {
    "standin-tiny": {
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "standin-small": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    "standin-medium": {
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
}


def write_standin(name: str, folder: Path) -> None:
    """Into an empty folder; the same bytes every time."""
    model = _model(name)
    # Saving draws a progress bar on stderr, in the middle of the caller's own.
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    shutil.copyfile(str(files(mistral_common) / "data" / "tokenizer.model.v1"), folder / "tokenizer.model")


def _model(name: str) -> MistralForCausalLM | MixtralForCausalLM:
    shape = {**_SHARED, **_SHAPES[name]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        if "num_local_experts" in shape:
            model = MixtralForCausalLM(MixtralConfig(**shape))
        else:
            model = MistralForCausalLM(MistralConfig(**shape))
    model.generation_config = GenerationConfig(bos_token_id=BOS_ID, eos_token_id=EOS_ID)
    return model
