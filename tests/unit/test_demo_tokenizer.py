"""tokenizer.json: the ids of sentencepiece itself, for runs of spaces, code, JSON, and whatever else people type."""

import json
import random

import pytest
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer

from core.tokenizer_files import tokenizer_file
from demo.tokenizer_json import make_tokenizer, write_tokenizer

STRINGS = 10_000
PARTS = (
    *(
        "def add(a, b):",
        "return a + b",
        "if x:",
        "\n",
        "\t",
        "{",
        "}",
        "[",
        "]",
        '"name": ',
        '"',
        "null",
        "true",
        "0.5",
    ),
    *("for", "while", "import os", "# note", "1234567890", "(", ")", ";", "//", "==", "->", "\\n", "\r\n", "é", "ß"),
    *("Hello", "straße", "ça va", "¿qué?", "perché", "日本語", "🙂", "👩‍🚀", "\u2581", "\u00a0", "\u0000", "the", "of"),
    *("[INST]", "[/INST]", "<0x0A>", "</", "&amp;", "http://a.b/c?d=e", "aaaaaaaa", "....", "--------", "ﬁ", "e\u0301"),
)


@pytest.fixture(scope="module")
def processor():
    return SentencePieceProcessor(model_file=str(tokenizer_file("v1")))


def strings(seed):
    rng = random.Random(seed)
    for _ in range(STRINGS):
        parts = (
            rng.choice(PARTS) + " " * rng.choice((0, 0, 1, 1, 2, 3, 4, 7, 8, 16)) for _ in range(rng.randint(1, 12))
        )
        yield " " * rng.choice((0, 0, 1, 2, 4)) + "".join(parts)


def test_the_ids_are_those_of_sentencepiece(processor):
    texts = list(strings(1))
    ours = make_tokenizer(tokenizer_file("v1")).encode_batch(texts, add_special_tokens=False)
    theirs = processor.encode(texts)
    assert [(t, o.ids) for t, o in zip(texts, ours, strict=True)] == list(zip(texts, theirs, strict=True))


def test_the_files_load_as_a_tokenizer_and_read_back(processor, tmp_path):
    write_tokenizer(tokenizer_file("v1"), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = 'def f():\n    return {"a":  1}'
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == processor.encode(text)
    assert tokenizer.decode(ids) == text
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, len(tokenizer)) == (1, 2, 32_000)
    assert (tmp_path / "tokenizer.model").read_bytes() == tokenizer_file("v1").read_bytes()
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["bos_token"] == "<s>"
