"""Examples as token ids, exactly as the gateway makes them, packed into rows of a fixed length.

Only what the assistant says is learnt, with the end of its turn. The model in training knows only the pieces that its
corpus uses: `Pieces` maps between them and the 32 000 of the vocabulary.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.utils.data import Dataset

from core.tokens import ChatTokenizer
from demo.examples import Example
from demo.mixture import Mixture, draw_example

VOCABULARY = 32_000
UNKNOWN_ID, BOS_ID, EOS_ID = 0, 1, 2
BYTE_IDS = range(3, 259)
IGNORED = -100  # what torch's cross entropy leaves out
TRIES_PER_ROW = 4


@dataclass(frozen=True, slots=True)
class Tokens:
    """`learnt[i]` says whether ids[i] is to be predicted."""

    ids: tuple[int, ...]
    learnt: tuple[bool, ...]


@cache
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer.load("v1")


def encode(example: Example) -> Tokens:
    """The conversation up to the end of its last answer."""
    messages = list(example.messages)
    whole = tokenizer().encode_chat([*messages, *_reply(messages[-1])], example.tools)
    learnt = [False] * len(whole)
    end = 0
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            start = len(tokenizer().encode_chat(messages[:index], example.tools))
            end = whole.index(EOS_ID, start) + 1
            learnt[start:end] = [True] * (end - start)
    return Tokens(whole[:end], tuple(learnt[:end]))


def prompt(example: Example) -> tuple[int, ...]:
    return tokenizer().encode_chat(example.prompt, example.tools)


def _reply(last: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What has to come after an answer, for the template to close the answer's turn."""
    calls = last.get("tool_calls", ())
    results: list[Mapping[str, Any]] = [
        {"role": "tool", "name": call["function"]["name"], "tool_call_id": call["id"], "content": "."} for call in calls
    ]
    return results or [{"role": "user", "content": "."}]


class Pieces:
    """The pieces in use. Number 0 stands for all others together: they share one row of the embedding."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = torch.tensor(sorted({UNKNOWN_ID, BOS_ID, EOS_ID, *ids}))
        self._number = torch.zeros(VOCABULARY, dtype=torch.long)
        self._number[self.ids] = torch.arange(len(self.ids))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def others(self) -> int:
        """How many pieces number 0 stands for."""
        return VOCABULARY - len(self.ids) + 1

    def have(self, others: "Pieces") -> bool:
        return bool(torch.isin(others.ids, self.ids).all())

    def numbers(self, ids: torch.Tensor) -> torch.Tensor:
        return self._number[ids]

    @classmethod
    def survey(cls, mixture: Mixture, seed: int, examples: int) -> "Pieces":
        """Those of the mixture's first examples, and every byte."""
        rng = random.Random(f"survey {seed}")
        seen: Counter[int] = Counter()
        for _ in range(examples):
            seen.update(encode(draw_example(mixture, rng)).ids)
        return cls([*seen, *BYTE_IDS])


@dataclass(frozen=True, slots=True)
class Batch:
    """Each [rows, row_tokens]: ids, places in their own example, ids to predict at each place or IGNORED."""

    ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor


class Batches(Dataset[Batch]):
    """Batch k depends on the seed and k alone: a run goes on where another stopped, with any number of workers."""

    def __init__(self, mixture: Mixture, seed: int, rows: int, row_tokens: int, count: int) -> None:
        self._mixture, self._seed, self._rows, self._row_tokens, self._count = mixture, seed, rows, row_tokens, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Batch:
        rng = random.Random(f"batch {self._seed} {index}")
        return pack(self._row(rng) for _ in range(self._rows))

    def _row(self, rng: random.Random) -> list[list[int]]:
        """Ids, positions and targets: examples one after the other, then padding. What does not fit is dropped."""
        columns: list[list[int]] = [[], [], []]
        misses = 0
        while misses < TRIES_PER_ROW:
            tokens = encode(draw_example(self._mixture, rng))
            if len(columns[0]) + len(tokens.ids) > self._row_tokens:
                misses += 1
                continue
            wanted = [id_ if learnt else IGNORED for id_, learnt in zip(tokens.ids, tokens.learnt, strict=True)]
            columns[0] += tokens.ids
            columns[1] += range(len(tokens.ids))
            columns[2] += [*wanted[1:], IGNORED]
        missing = self._row_tokens - len(columns[0])
        return [columns[0] + [EOS_ID] * missing, columns[1] + list(range(missing)), columns[2] + [IGNORED] * missing]


def pack(rows: Iterable[list[list[int]]]) -> Batch:
    ids, positions, targets = torch.tensor(list(rows)).unbind(1)
    return Batch(ids, positions, targets)
