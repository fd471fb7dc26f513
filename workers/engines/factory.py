"""Engines by name. A module is imported only when a tier chooses it: only one of them may need torch."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from structlog.stdlib import BoundLogger

from core.catalog import Catalog, Tier
from core.clock import Clock
from core.errors import SetupError
from core.settings import default_environment
from core.wire import CHAT
from workers.engines.base import Engine

# vLLM reads some of its settings from the environment, and only there.
VLLM_ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_USE_V2_MODEL_RUNNER": "0",  # the other one has another interface for samplers
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # on a CPU: no further process below vLLM's own
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the other processes of a small machine want cores, too
    }
)


@dataclass(frozen=True, slots=True)
class EngineClass:
    """`environment` holds what the library wants to find there before it is imported."""

    module: str
    name: str
    needs_weights: bool
    environment: Mapping[str, str] = field(default_factory=dict)


ENGINES: Mapping[str, EngineClass] = MappingProxyType(
    {
        "echo": EngineClass("workers.engines.echo", "EchoEngine", needs_weights=False),
        "transformers": EngineClass("workers.engines.transformers_engine", "TransformersEngine", needs_weights=True),
        "vllm": EngineClass(
            "workers.engines.vllm_engine", "VllmEngine", needs_weights=True, environment=VLLM_ENVIRONMENT
        ),
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
    default_environment(chosen.environment)
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
