"""Which worker processes the chat tiers need: one for each interpreter that their pools name."""

import importlib.util
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.catalog import Catalog, Tier
from core.errors import SetupError

WORKER = "worker"
VLLM = "vllm"
VLLM_INTERPRETER = Path(__file__).resolve().parents[1] / ".venv-vllm" / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Pool:
    """One worker process: `interpreter` is the python that it runs under."""

    name: str
    interpreter: str
    tiers: tuple[Tier, ...]

    @property
    def tier_names(self) -> tuple[str, ...]:
        return tuple(tier.name for tier in self.tiers)


def worker_pools(catalog: Catalog, vllm: Path = VLLM_INTERPRETER) -> list[Pool]:
    """In the order of the catalog. SetupError if an interpreter is not there."""
    found: dict[str, list[Tier]] = {}
    for tier in catalog.tiers:
        if tier.kind == "chat":
            found.setdefault(_interpreter(tier, vllm), []).append(tier)
    return [
        Pool(WORKER if len(found) == 1 else f"{WORKER}-{tiers[0].name}", interpreter, tuple(tiers))
        for interpreter, tiers in found.items()
    ]


def served(pools: Iterable[Pool]) -> dict[str, str]:
    """Process name to the tiers behind it."""
    return {pool.name: ", ".join(pool.tier_names) for pool in pools}


def _interpreter(tier: Tier, vllm: Path) -> str:
    if tier.interpreter is not None:
        path = tier.interpreter.expanduser().absolute()
        if not os.access(path, os.X_OK) or path.is_dir():
            raise SetupError(f"{tier.name}: the interpreter {path} is not there, or cannot be run.")
        return str(path)
    if tier.engine != VLLM or importlib.util.find_spec(VLLM) is not None:
        return sys.executable
    if not vllm.exists():
        raise SetupError(
            f"{tier.name}: the vllm engine is not installed; run `make vllm`, or name as the tier's `interpreter` "
            "a python that has vLLM and the packages of core/ and workers/."
        )
    return str(vllm)
