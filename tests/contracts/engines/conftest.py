"""Which engines the suite runs over: one line each."""

from collections.abc import AsyncIterator, Callable

import pytest
import structlog

from core.catalog import Tier
from core.clock import SystemClock
from tests.contracts.engines.run import CONTEXT_TOKENS, Run
from workers.engines.base import Engine
from workers.engines.echo import EchoEngine


def tier(engine: str, **more) -> Tier:
    fields = {"name": "pool", "engine": engine, "weights": "none", "context_tokens": CONTEXT_TOKENS}
    return Tier.model_validate(fields | {"price": {"input": "0"}} | more)


def echo(request: pytest.FixtureRequest) -> Engine:
    options = {"tokens_per_s": 400.0, "answer_tokens": 20}
    return EchoEngine(tier("echo", echo=options), "none", SystemClock(), structlog.get_logger())


ENGINES: dict[str, Callable[[pytest.FixtureRequest], Engine]] = {
    "echo": echo,
}


@pytest.fixture(params=sorted(ENGINES))
async def run(request: pytest.FixtureRequest) -> AsyncIterator[Run]:
    """A started engine of each kind, and what it has said so far."""
    engine = ENGINES[request.param](request)
    await engine.start()
    try:
        yield Run(engine)
    finally:
        await engine.close()
