"""docs/api.md tells of every field, and truly."""

import re
from pathlib import Path

import pytest

from gateway.schemas.chat import REFUSED, UNUSED, ChatCompletionRequest
from gateway.schemas.embeddings import EmbeddingRequest
from gateway.schemas.fim import FIMCompletionRequest

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (?P<names>`[^|]*`) \| (?P<fate>served|ignored|refused) \|", re.MULTILINE)


def told(heading):
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [(re.findall(r"`([a-z_]+)`", row["names"]), row["fate"]) for row in ROW.finditer(section)]
    return {name: fate for names, fate in rows for name in names}


def fate(name):
    return "refused" if name in REFUSED else "ignored" if name in UNUSED else "served"


@pytest.mark.parametrize(
    ("heading", "model"),
    [("Chat", ChatCompletionRequest), ("Fill in the middle", FIMCompletionRequest), ("Embeddings", EmbeddingRequest)],
)
def test_each_field_and_its_fate(heading, model):
    assert told(heading) == {name: fate(name) for name in model.model_fields}
