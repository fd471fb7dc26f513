from pathlib import Path

import pytest
import structlog

from core.catalog import read_catalog
from core.clock import SystemClock
from core.errors import SetupError
from workers.engines.factory import check_engines, make_engine

CATALOG = read_catalog(Path(__file__).parents[2] / "tramontane.toml")


@pytest.mark.parametrize("engine", ["echo", "transformers", "vllm"])
def test_engines_that_are_there_pass(engine):
    check_engines(CATALOG.with_engine(engine))


def test_an_engine_that_is_not_there_is_told_before_anything_starts():
    other = CATALOG.tiers[0].model_copy(update={"engine": "llama"})
    with pytest.raises(SetupError, match="mistral-tiny: the llama engine is not part of this installation"):
        check_engines(CATALOG.model_copy(update={"tiers": (other,)}))


def test_an_engine_whose_library_is_not_here_says_which(tmp_path):
    tier = CATALOG.with_engine("vllm").tiers[0]
    with pytest.raises(SetupError, match="mistral-tiny: the vllm engine needs the package vllm"):
        make_engine(tier, tmp_path, SystemClock(), structlog.get_logger())
