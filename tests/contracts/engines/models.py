"""Engines over stand-in checkpoints, prompts for them, and what the plain model says."""

import os
import random
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
import torch
from transformers import AutoModelForCausalLM

from core.catalog import Tier
from core.clock import SystemClock
from tests.contracts.engines.run import CONTEXT_TOKENS, Run
from workers.engines.base import Engine
from workers.engines.factory import make_engine

ENGINES = os.environ.get("TRAMONTANE_TEST_ENGINES", "echo,transformers").split(",")
MODEL_ENGINE = "vllm" if "vllm" in ENGINES else "transformers"
EOS = 2
GREEDY = {"temperature": 0.0, "seed": None}
SMALL = {"slots": 16, "batch_tokens_max": 128}
ECHO = {"tokens_per_s": 400.0, "answer_tokens": 20}


def tier(engine: str, **more) -> Tier:
    fields = {"name": "pool", "engine": engine, "weights": "none", "context_tokens": CONTEXT_TOKENS, **SMALL}
    return Tier.model_validate(fields | {"price": {"input": "0"}, "echo": ECHO} | more)


def new_engine(name: str, folder: Path, **changes) -> Engine:
    return make_engine(tier(name, **changes), folder, SystemClock(), structlog.get_logger())


@asynccontextmanager
async def running(folder: Path, **changes):
    """The engine of real models that is asked for, over one checkpoint."""
    engine = new_engine(MODEL_ENGINE, folder, **changes)
    await engine.start()
    try:
        yield Run(engine)
    finally:
        await engine.close()


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    rnd = random.Random(seed)
    return (1, *(rnd.randrange(3, 32_000) for _ in range(length - 1)))


def oracle(folder: Path, prompt_ids: tuple[int, ...], count: int) -> list[int]:
    """Plain greedy decoding, without the end."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    inputs = torch.tensor([prompt_ids])
    out = model.generate(
        inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=count, do_sample=False, pad_token_id=0
    )
    ids = out[0, len(prompt_ids) :].tolist()
    return ids[: ids.index(EOS)] if EOS in ids else ids
