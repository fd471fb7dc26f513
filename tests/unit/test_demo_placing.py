"""Demo checkpoints in a home: trained ones linked or copied, stand-ins made; real format, never half-written."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from core.errors import SetupError
from demo.placing import BROUGHT, EMBEDDER, place_checkpoints


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    lines: list[str] = []
    place_checkpoints(home, ("standin-tiny", "standin-small", EMBEDDER), lines.append)
    return home, lines


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "architecture", "experts"),
    [("standin-tiny", "MistralForCausalLM", None), ("standin-small", "MixtralForCausalLM", 8)],
)
def test_a_checkpoint_loads_with_plain_from_pretrained(made, name, architecture, experts):
    folder = made[0] / "models" / name
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == [architecture]
    assert config.get("num_local_experts") == experts
    assert (config["vocab_size"], config["max_position_embeddings"]) == (32_000, 2_048)
    assert config["num_key_value_heads"] < config["num_attention_heads"]
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.generation_config.eos_token_id == 2
    with torch.no_grad():
        logits = model(torch.tensor([[1, 5, 9]])).logits
    assert logits.shape == (1, 3, 32_000)
    assert torch.isfinite(logits).all()


def test_the_tokenizer_is_the_one_the_gateway_counts_with(made):
    raw = (made[0] / "models" / "standin-tiny" / "tokenizer.model").read_bytes()
    assert len(raw) == 493_443


def test_made_once_and_the_same_everywhere(made, tmp_path):
    home, lines = made
    assert len(lines) == 3
    again: list[str] = []
    place_checkpoints(home, ("standin-tiny", EMBEDDER), again.append)
    assert again == []
    place_checkpoints(tmp_path, ("standin-tiny",), again.append)
    assert digest(tmp_path / "models" / "standin-tiny") == digest(home / "models" / "standin-tiny")


def test_the_random_state_of_the_caller_is_left_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    place_checkpoints(tmp_path, ("standin-tiny",), lambda _: None)
    assert torch.equal(torch.rand(1), expected)


def test_the_embedding_model_is_linked_and_a_dangling_link_mended(made, tmp_path):
    assert (made[0] / "models" / EMBEDDER / "tokenizer.json").is_file()
    models = tmp_path / "models"
    models.mkdir()
    (models / EMBEDDER).symlink_to(tmp_path / "gone")
    place_checkpoints(tmp_path, (EMBEDDER,), lambda _: None)
    assert (models / EMBEDDER / "model.safetensors").is_file()


def test_the_embedding_model_is_copied_where_its_package_will_not_be(tmp_path):
    lines: list[str] = []
    place_checkpoints(tmp_path, (EMBEDDER,), lines.append, copy=True)
    (folder,) = (tmp_path / "models").iterdir()
    assert not folder.is_symlink()
    assert (folder / "tokenizer.json").is_file()
    assert not (folder / "tokenizer.json").is_symlink()
    assert lines == [f"Copying {EMBEDDER}"]


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("was_link", [False, True])
def test_what_an_earlier_release_put_there_is_replaced_once(tmp_path, copy, was_link):
    earlier = tmp_path / "earlier"
    shutil.copytree(BROUGHT["mistral-tiny"], earlier)
    (earlier / "model.safetensors").write_bytes(b"other weights")
    target = tmp_path / "models" / "mistral-tiny"
    target.parent.mkdir()
    target.symlink_to(earlier) if was_link else shutil.copytree(earlier, target)
    lines: list[str] = []
    for _ in range(2):
        place_checkpoints(tmp_path, ("mistral-tiny",), lines.append, copy=copy)
    assert len(lines) == 1
    assert digest(target) == digest(BROUGHT["mistral-tiny"])
    assert digest(earlier) != digest(target)
    assert [path.name for path in target.parent.iterdir()] == ["mistral-tiny"]


def test_nothing_is_left_behind_when_writing_fails(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.modeling_utils.PreTrainedModel.save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        place_checkpoints(tmp_path, ("standin-tiny",), lambda _: None)
    assert list((tmp_path / "models").iterdir()) == []


def test_an_outdated_copy_stays_until_its_successor_is_whole(tmp_path, monkeypatch):
    target = tmp_path / "models" / "mistral-tiny"
    target.mkdir(parents=True)
    (target / "model.safetensors").write_bytes(b"other weights")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("demo.placing.shutil.copytree", full)
    with pytest.raises(OSError, match="No space left"):
        place_checkpoints(tmp_path, ("mistral-tiny",), lambda _: None, copy=True)
    assert [path.name for path in target.parent.iterdir()] == ["mistral-tiny"]
    assert (target / "model.safetensors").read_bytes() == b"other weights"


def test_an_unknown_name_is_one_clear_sentence(tmp_path):
    with pytest.raises(SetupError, match="no demo checkpoint mistral-huge"):
        place_checkpoints(tmp_path, ("mistral-huge",), lambda _: None)
