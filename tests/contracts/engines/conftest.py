"""Which engines the suite runs over: one line each."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import structlog

from core.catalog import Tier
from core.clock import SystemClock
from demo.standin import make_standins
from tests.contracts.engines.run import CONTEXT_TOKENS, Run
from workers.engines.base import Engine
from workers.engines.echo import EchoEngine
from workers.engines.transformers_engine import TransformersEngine


def tier(engine: str, **more) -> Tier:
    fields = {"name": "pool", "engine": engine, "weights": "none", "context_tokens": CONTEXT_TOKENS}
    return Tier.model_validate(fields | {"price": {"input": "0"}} | more)


def echo(request: pytest.FixtureRequest) -> Engine:
    options = {"tokens_per_s": 400.0, "answer_tokens": 20}
    return EchoEngine(tier("echo", echo=options), "none", SystemClock(), structlog.get_logger())


def transformers(request: pytest.FixtureRequest) -> Engine:
    folder = request.getfixturevalue("models") / "mistral-tiny"
    small = {"slots": 16, "batch_tokens_max": 128}
    return TransformersEngine(tier("transformers", **small), folder, SystemClock(), structlog.get_logger())


ENGINES: dict[str, Callable[[pytest.FixtureRequest], Engine]] = {
    "echo": echo,
    "transformers": transformers,
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stand-in checkpoints."""
    home = tmp_path_factory.mktemp("home")
    make_standins(home, ("mistral-tiny", "mistral-small"), lambda _: None)
    return home / "models"


@pytest.fixture(params=sorted(ENGINES))
async def run(request: pytest.FixtureRequest) -> AsyncIterator[Run]:
    """A started engine of each kind, and what it has said so far."""
    engine = ENGINES[request.param](request)
    await engine.start()
    try:
        yield Run(engine)
    finally:
        await engine.close()
