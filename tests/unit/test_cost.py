"""The price of a request: every vector, and random ones against exact fractions."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.meter import cost as cost_module
from core.meter.cost import cost_nano

VECTORS = json.loads((Path(cost_module.__file__).parent / "vectors.json").read_text(encoding="utf-8"))

tokens = st.integers(0, 2**40)
nano = st.one_of(st.integers(0, 3_000), st.integers(0, 10**10))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["why"])
def test_vector(vector):
    inputs = {name: value for name, value in vector.items() if name not in {"why", "cost_nano"}}
    tokens_in, cached, out = (inputs.pop(name) for name in ("prompt_tokens", "cached_tokens", "completion_tokens"))
    assert cost_nano(tokens_in, cached, out, **inputs) == vector["cost_nano"]


@given(tokens, st.data(), tokens, nano, nano, nano)
def test_equals_the_exact_fraction_rounded_half_to_even(prompt, data, completion, input_nano, cached_nano, output_nano):
    cached = data.draw(st.integers(0, prompt))
    exact = Fraction((prompt - cached) * input_nano + cached * cached_nano + completion * output_nano, 1_000)
    prices = {"input_nano": input_nano, "cached_nano": cached_nano, "output_nano": output_nano}
    assert cost_nano(prompt, cached, completion, **prices) == round(exact)  # Python rounds a Fraction half to even


@given(st.integers(0, 10**6))
def test_ties_go_to_the_even_neighbour(whole):
    tie = cost_nano(1, 0, 0, input_nano=whole * 1_000 + 500, cached_nano=0, output_nano=0)
    assert tie == whole + whole % 2
