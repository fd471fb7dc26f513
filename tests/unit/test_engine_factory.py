from pathlib import Path

import pytest

from core.catalog import read_catalog
from core.errors import SetupError
from workers.engines.factory import check_engines

CATALOG = read_catalog(Path(__file__).parents[2] / "tramontane.toml")


@pytest.mark.parametrize("engine", ["echo", "transformers"])
def test_engines_that_are_there_pass(engine):
    check_engines(CATALOG.with_engine(engine))


def test_an_engine_that_is_not_there_is_told_before_anything_starts():
    with pytest.raises(SetupError, match="mistral-tiny: the vllm engine is not part of this installation"):
        check_engines(CATALOG.with_engine("vllm"))
