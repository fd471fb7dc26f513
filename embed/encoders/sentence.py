"""sentence-transformers: any of its models, from a folder or the hub."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from core.catalog import Tier
from core.errors import SetupError

NO_PROMPT = ""


class NotFiniteError(ArithmeticError):
    """A vector holds NaN or infinity, which no caller could read."""


class SentenceEncoder:
    """A folder is never looked up on the hub; a hub id is, unless HF_HUB_OFFLINE is set."""

    def __init__(self, tier: Tier, weights: Path | str, dimensions: int) -> None:
        self._tier = tier
        self._weights = weights
        self._dimensions = dimensions
        self._model: SentenceTransformer | None = None

    @property
    def dimensions(self) -> int:
        return self._dimensions

    def load(self) -> None:
        tier = self._tier
        torch.set_num_threads(tier.threads)
        transformers_logging.disable_progress_bar()  # it would draw between the lines of the log
        try:
            model = SentenceTransformer(
                str(self._weights),
                device=tier.device,
                local_files_only=isinstance(self._weights, Path),
                model_kwargs={"dtype": getattr(torch, tier.dtype)},
            )
        except (OSError, ValueError) as error:
            raise SetupError(f"{tier.name}: the encoder {self._weights} cannot be loaded: {error}") from error
        made, window_tokens = model.get_embedding_dimension(), model.max_seq_length
        if made != self._dimensions:
            raise SetupError(f"{tier.name}: the encoder makes {made} dimensions, the tier says {self._dimensions}.")
        if window_tokens is not None and tier.context_tokens > window_tokens:
            raise SetupError(f"{tier.name}: context_tokens is {tier.context_tokens}, the encoder's {window_tokens}.")
        self._model = model

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        # Without the model's default prompt: it was not counted, so it must neither be billed nor push a text over
        # the window, where the library would cut it silently.
        vectors = self._loaded().encode(
            list(texts), batch_size=len(texts), prompt=NO_PROMPT, show_progress_bar=False, convert_to_numpy=True
        )
        if not np.isfinite(vectors).all():
            raise NotFiniteError("a vector is not finite")
        return [row.tobytes() for row in vectors.astype("<f4")]

    def count(self, texts: Sequence[str]) -> list[int]:
        encoded = self._loaded().tokenizer(list(texts), truncation=False, padding=False, verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]

    def close(self) -> None:
        self._model = None

    def _loaded(self) -> SentenceTransformer:
        assert self._model is not None, "load comes first"
        return self._model
