"""Right or wrong: the same text, the same JSON, the same calls. And how much of it the training has seen."""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from core.tools import split_tool_calls
from demo.examples import Example
from demo.mixture import Mixture, draw_example

OVERLAP_DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Overlap:
    """Of so many held-out prompts, those that `draws` of training hold word for word, or in known phrasings only."""

    prompts: int
    draws: int
    same_prompt: int
    same_phrasings: int


def is_right(example: Example, text: str) -> bool:
    match example.check:
        case "json":
            return bool(_parsed(text) == _parsed(example.answer["content"]))
        case "calls":
            made = split_tool_calls(text)
            wanted = [call["function"] for call in example.answer["tool_calls"]]
            return made is not None and [(call.name, _parsed(call.arguments)) for call in made.calls] == [
                (call["name"], _parsed(call["arguments"])) for call in wanted
            ]
        case "text":
            return text.strip() == str(example.answer["content"])


def tally(examples: Iterable[Example], texts: Iterable[str]) -> dict[str, tuple[int, int]]:
    """By skill: right ones, and all."""
    counts: dict[str, tuple[int, int]] = {}
    for example, text in zip(examples, texts, strict=True):
        right, total = counts.get(example.skill, (0, 0))
        counts[example.skill] = (right + is_right(example, text), total + 1)
    return counts


def overlap(examples: Sequence[Example], mixture: Mixture, seed: int, draws: int = OVERLAP_DRAWS) -> Overlap:
    rng = random.Random(f"overlap {seed}")
    prompts: set[str] = set()
    phrasings: set[str] = set()
    for _ in range(draws):
        drawn = draw_example(mixture, rng)
        prompts.add(_key(drawn))
        phrasings |= drawn.phrasings
    return Overlap(
        len(examples),
        draws,
        sum(_key(example) in prompts for example in examples),
        sum(example.phrasings <= phrasings for example in examples),
    )


def _key(example: Example) -> str:
    return json.dumps(example.prompt, ensure_ascii=False, sort_keys=True)


def _parsed(text: str) -> Any:
    """Something that equals nothing for what is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return object()
