"""A checkpoint in Hugging Face's layout: all 32 000 pieces, bfloat16, and the tokenizer's files."""

import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from core.tokenizer_files import tokenizer_file
from demo.rows import VOCABULARY, Pieces
from demo.tiers import Model
from demo.tokenizer_json import write_tokenizer
from demo.upcycling import EMBEDDING, HEAD


def save_checkpoint(model: Model, pieces: Pieces, target: Path) -> None:
    """What was trained over `pieces`, over all."""
    write_checkpoint(_whole(model, pieces), target)


def write_checkpoint(whole: Model, target: Path) -> None:
    """Replaces what is there once it is complete."""
    staging = target.with_name(f".{target.name}")
    shutil.rmtree(staging, ignore_errors=True)
    transformers_logging.disable_progress_bar()
    whole.save_pretrained(staging)
    write_tokenizer(tokenizer_file("v1"), staging)
    shutil.rmtree(target, ignore_errors=True)
    staging.replace(target)


def read_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], Pieces]:
    """The weights over the pieces that have a row of their own: all that were never trained have the same one."""
    model: Model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    weights = dict(model.state_dict())
    rows = weights[EMBEDDING]
    trained = (rows != rows[0]).any(1).nonzero().flatten()
    pieces = Pieces(trained.tolist())
    return {**weights, EMBEDDING: rows[pieces.ids], HEAD: rows[pieces.ids]}, pieces


def _whole(model: Model, pieces: Pieces) -> Model:
    """Every piece that the corpus does not use gets the row that stood for all of them."""
    config = type(model.config)(**{**model.config.to_dict(), "vocab_size": VOCABULARY})
    whole: Model = type(model)(config)
    weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    rows = weights[EMBEDDING]
    embedding = rows[0].expand(VOCABULARY, -1).clone()
    embedding[pieces.ids] = rows
    whole.load_state_dict({**weights, EMBEDDING: embedding, HEAD: embedding})
    whole.generation_config = model.generation_config
    return whole.to(torch.bfloat16)
