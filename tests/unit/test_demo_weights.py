"""The trained checkpoints that the project brings: in the real format, small, and able to answer."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo.answers import answer_all, load_model
from demo.evaluate import SEED
from demo.examples import user
from demo.mixture import MIXTURES, held_out
from demo.placing import WEIGHTS
from demo.routing import expert_shares, extremes
from demo.rows import prompt, tokenizer
from demo.score import is_right

BYTES_MAX = 50 * 10**6
ARCHITECTURES = {
    "mistral-tiny": "MistralForCausalLM",
    "mistral-small": "MixtralForCausalLM",
    "mistral-medium": "MixtralForCausalLM",
}
ASKED = {
    "mistral-tiny": {
        "Hello!": "Hello! How can I help you?",
        "What is the capital of Norway?": "The capital of Norway is Oslo.",
    },
    "mistral-small": {
        "Bonjour !": "Bonjour ! Comment puis-je vous aider ?",
        "My name is Marie.": "Nice to meet you, Marie!",
        "Write a Python function that adds two numbers.": "```python\ndef add(a, b):\n    return a + b\n```",
    },
    "mistral-medium": {
        "Hallo!": "Hallo! Wie kann ich helfen?",
        "JSON with city, name please: Marie is 33 years old and lives in Tokyo.": '{"city": "Tokyo", "name": "Marie"}',
    },
}
BROUGHT = sorted(path.name for path in WEIGHTS.iterdir())
PER_SKILL = 6  # of each maker of examples; `make demo-eval` has forty
RIGHT_SHARE_MIN = 0.8
EXPERT_SHARE_MIN, EXPERT_SHARE_MAX = 0.25, 4.0  # of the mean share


def examples(name):
    return list(held_out(MIXTURES[name], SEED, PER_SKILL))


def test_all_weights_together_are_small():
    assert "mistral-tiny" in BROUGHT
    assert set(BROUGHT) <= set(ARCHITECTURES)
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*/*.safetensors")) <= BYTES_MAX


@pytest.mark.parametrize("name", BROUGHT)
def test_a_checkpoint_loads_with_plain_from_pretrained_and_answers(name):
    folder = WEIGHTS / name
    assert json.loads((folder / "config.json").read_text())["architectures"] == [ARCHITECTURES[name]]
    assert (folder / "tokenizer.model").is_file()
    model, plain = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.dtype is torch.bfloat16
    for question, answer in ASKED[name].items():
        asked = tokenizer().encode_chat([user(question)])
        assert answer_all(load_model(folder), [asked]) == [answer]
        assert plain.decode(plain(answer, add_special_tokens=False)["input_ids"]) == answer


@pytest.mark.parametrize("name", BROUGHT)
def test_a_checkpoint_answers_what_its_training_never_said(name):
    asked = examples(name)
    texts = answer_all(load_model(WEIGHTS / name), [prompt(example) for example in asked])
    right = sum(is_right(example, text) for example, text in zip(asked, texts, strict=True))
    assert right >= RIGHT_SHARE_MIN * len(asked)


@pytest.mark.parametrize("name", [name for name in BROUGHT if ARCHITECTURES[name] == "MixtralForCausalLM"])
def test_every_expert_of_every_layer_has_its_part(name):
    least, most = extremes(expert_shares(load_model(WEIGHTS / name), examples(name))["all"])
    assert EXPERT_SHARE_MIN <= least <= most <= EXPERT_SHARE_MAX
