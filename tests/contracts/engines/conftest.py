"""Which engines the suite runs over: echo and transformers, or those that TRAMONTANE_TEST_ENGINES names.

vllm lives in an environment of its own, where `make vllm-test` runs the suite. It takes long to start, so each test
hands its engine on to the next, unless it has closed it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from demo.placing import place_checkpoints
from tests.contracts.engines.models import ENGINES, MODEL_ENGINE, new_engine
from tests.contracts.engines.run import Run

LOADS_LONG = "vllm"
collect_ignore = ["test_transformers_engine.py" if MODEL_ENGINE == LOADS_LONG else "test_vllm_engine.py"]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stand-in checkpoints."""
    home = tmp_path_factory.mktemp("home")
    place_checkpoints(home, ("standin-tiny", "standin-small"), lambda _: None)
    return home / "models"


class Keeper:
    """One engine from test to test, until a test closes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._run: Run | None = None

    async def run(self) -> Run:
        if self._run is None or self._run.closed:
            engine = new_engine(LOADS_LONG, self._folder)
            await engine.start()
            self._run = Run(engine)
        self._run.forget()
        return self._run

    async def tidy(self) -> None:
        """End what a test left open."""
        if self._run is not None and not self._run.closed:
            await self._run.abort_all()

    async def close(self) -> None:
        if self._run is not None and not self._run.closed:
            await self._run.engine.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def keeper(models: Path) -> AsyncIterator[Keeper]:
    keeper = Keeper(models / "standin-tiny")
    yield keeper
    await keeper.close()


@pytest.fixture(params=sorted(ENGINES))
async def run(request: pytest.FixtureRequest, models: Path, keeper: Keeper) -> AsyncIterator[Run]:
    """A started engine of each kind, and what it has said so far."""
    async with _running(request.param, models, keeper) as run:
        yield run


@pytest.fixture
async def model_run(models: Path, keeper: Keeper) -> AsyncIterator[Run]:
    """A started engine with a model."""
    async with _running(MODEL_ENGINE, models, keeper) as run:
        yield run


@asynccontextmanager
async def _running(name: str, models: Path, keeper: Keeper) -> AsyncIterator[Run]:
    if name == LOADS_LONG:
        yield await keeper.run()
        await keeper.tidy()
        return
    engine = new_engine(name, models / "standin-tiny")
    await engine.start()
    try:
        yield Run(engine)
    finally:
        await engine.close()
