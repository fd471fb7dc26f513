"""What a checkpoint answers, by plain transformers and greedily: alone or many at once."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from core.clock import Clock
from demo.rows import EOS_ID, tokenizer
from demo.tiers import Model

ANSWER_TOKENS_MAX = 96
BATCH = 32
SPEED_TOKENS = 128


def load_model(folder: Path) -> Model:
    """In float32, which is quicker than bfloat16 for one token at a time on a CPU."""
    model: Model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def answer_all(model: Model, prompts: Sequence[tuple[int, ...]], batch: int = BATCH) -> list[str]:
    """One text for each prompt, in their order; those of similar length go together."""
    texts = [""] * len(prompts)
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(by_length), batch):
        chosen = by_length[start : start + batch]
        for index, text in zip(chosen, _answers(model, [prompts[index] for index in chosen]), strict=True):
            texts[index] = text
    return texts


def tokens_per_second(model: Model, prompt: tuple[int, ...], clock: Clock) -> float:
    """Of a single stream, the prompt included, with the end of the answer ignored."""
    started_s = clock.monotonic_s()
    model.generate(
        torch.tensor([prompt]),
        do_sample=False,
        min_new_tokens=SPEED_TOKENS,
        max_new_tokens=SPEED_TOKENS,
        pad_token_id=EOS_ID,
    )
    return SPEED_TOKENS / (clock.monotonic_s() - started_s)


def _answers(model: Model, prompts: Sequence[tuple[int, ...]]) -> list[str]:
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[EOS_ID] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    seen = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    out = model.generate(
        ids, attention_mask=seen, do_sample=False, max_new_tokens=ANSWER_TOKENS_MAX, pad_token_id=EOS_ID
    )
    return [tokenizer().decode([token for token in row if token != EOS_ID]) for row in out[:, width:].tolist()]
