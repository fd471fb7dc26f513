"""Encoders by name. A module is imported only when a tier chooses it: the fake one needs no torch."""

import importlib
from pathlib import Path

from core.catalog import Tier
from core.errors import SetupError
from core.text_counter import encoder_weights
from embed.encoders.base import Encoder
from embed.encoders.hash import HashEncoder

SENTENCE_MODULE = "embed.encoders.sentence"


def make_encoder(tier: Tier, home: Path) -> Encoder:
    """Not loaded yet. SetupError if the tier's engine is not installed or its weights are missing."""
    assert tier.dimensions is not None, "the catalog demands it of embedding tiers"
    if tier.engine == "hash":
        return HashEncoder(tier.dimensions)
    weights = encoder_weights(tier.weights, home)
    try:
        module = importlib.import_module(SENTENCE_MODULE)
    except ModuleNotFoundError as error:
        raise SetupError(f"{tier.name}: the engine {tier.engine} needs the package {error.name}.") from error
    encoder: Encoder = module.SentenceEncoder(tier, weights, tier.dimensions)
    return encoder
