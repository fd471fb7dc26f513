"""Engines by name. A module is imported only when a tier chooses it: only one of them may need torch."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from structlog.stdlib import BoundLogger

from core.catalog import Catalog, Tier
from core.clock import Clock
from core.errors import SetupError
from core.wire import CHAT
from workers.engines.base import Engine


@dataclass(frozen=True, slots=True)
class EngineClass:
    module: str
    name: str
    needs_weights: bool


ENGINES: Mapping[str, EngineClass] = MappingProxyType(
    {
        "echo": EngineClass("workers.engines.echo", "EchoEngine", needs_weights=False),
        "transformers": EngineClass("workers.engines.transformers_engine", "TransformersEngine", needs_weights=True),
    }
)


def check_engines(catalog: Catalog) -> None:
    """SetupError for a chat tier whose engine no release of ours has: to be told before anything is started."""
    for tier in catalog.tiers:
        if tier.kind == CHAT:
            _chosen(tier)


def make_engine(tier: Tier, weights: Path | str, clock: Clock, log: BoundLogger) -> Engine:
    """Not started yet. SetupError if the tier's engine is not installed, or its folder of weights is missing."""
    chosen = _chosen(tier)
    if chosen.needs_weights and isinstance(weights, Path) and not weights.exists():
        raise SetupError(f"{tier.name}: there are no weights at {weights}.")
    try:
        engine: Engine = getattr(importlib.import_module(chosen.module), chosen.name)(tier, weights, clock, log)
    except ModuleNotFoundError as error:
        raise SetupError(f"{tier.name}: the {tier.engine} engine needs the package {error.name}.") from error
    return engine


def _chosen(tier: Tier) -> EngineClass:
    chosen = ENGINES.get(tier.engine)
    if chosen is None:
        raise SetupError(f"{tier.name}: the {tier.engine} engine is not part of this installation yet.")
    return chosen
