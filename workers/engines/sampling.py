"""How tokens are drawn, row by row, independent of what else is in the batch.

Each choice of each request has its own sequence of uniform numbers, a hash of (seed, choice, position): the same seed
gives the same text alone, in any batch, and when a choice is continued from tokens that an earlier attempt delivered.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

import torch

from core.wire import Sampling

GREEDY_BELOW = 1e-5  # dividing by less overflows float32, and nothing but the largest logit would ever be drawn
UNIFORM_BITS = 52  # so that uniform * total < total also after rounding to a double
BLOCK = 128
NUCLEUS_GUESS = 1_024  # the nucleus of a trained model is smaller; sorting a whole vocabulary costs ten times as much


class Draw:
    """The sampling state of one choice: what was put out so far, and the uniform number for the next position."""

    def __init__(self, sampling: Sampling, request_id: str, choice: int, emitted_ids: Sequence[int]) -> None:
        self.temperature = sampling.temperature
        self.top_p = sampling.top_p
        self.min_tokens = sampling.min_tokens
        self.presence_penalty = sampling.presence_penalty
        self.frequency_penalty = sampling.frequency_penalty
        self.position = len(emitted_ids)
        self.counts = Counter(emitted_ids)
        seed = f"request {request_id}" if sampling.seed is None else f"seed {sampling.seed}"
        self._key = f"{seed} choice {choice} position ".encode()

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def is_penalised(self) -> bool:
        return self.presence_penalty != 0.0 or self.frequency_penalty != 0.0

    def append(self, token_id: int) -> None:
        self.position += 1
        self.counts[token_id] += 1

    def uniform(self) -> float:
        """In [0, 1), the same for the same seed, choice and position."""
        digest = hashlib.blake2b(self._key + str(self.position).encode(), digest_size=8).digest()
        return (int.from_bytes(digest, "little") >> (64 - UNIFORM_BITS)) * 2.0**-UNIFORM_BITS


def choose(scores: torch.Tensor, draws: Sequence[Draw], eos_ids: Sequence[int]) -> None:
    """Change `scores` (float32, at least len(draws) rows x vocabulary) so that the largest of row i is the next token
    of draws[i].
    """
    for row, draw in enumerate(draws):
        if draw.position < draw.min_tokens:
            scores[row, list(eos_ids)] = -torch.inf
        if draw.is_penalised and draw.counts:
            _penalise(scores[row], draw)
    sampled = [row for row, draw in enumerate(draws) if not draw.is_greedy]
    if not sampled:
        return
    rows = torch.tensor(sampled, device=scores.device)
    # Copying rows of a whole vocabulary is as dear as any other pass over them; mostly all are sampled.
    picked = scores[: len(draws)] if len(sampled) == len(draws) else scores[rows]
    scores[rows, _sample(picked, [draws[row] for row in sampled])] = torch.inf


def _penalise(row: torch.Tensor, draw: Draw) -> None:
    ids = torch.tensor(list(draw.counts), device=row.device)
    times = torch.tensor(list(draw.counts.values()), dtype=row.dtype, device=row.device)
    row[ids] -= draw.presence_penalty + draw.frequency_penalty * times


def _sample(scores: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """One token id per row."""
    temperatures = torch.tensor([draw.temperature for draw in draws], device=scores.device)
    probabilities = torch.softmax(scores / temperatures[:, None], dim=-1)
    narrow = [row for row, draw in enumerate(draws) if draw.top_p < 1.0]
    if narrow:
        rows = torch.tensor(narrow, device=scores.device)
        top_p = torch.tensor([draws[row].top_p for row in narrow], device=scores.device)
        probabilities[rows] = _nucleus(probabilities[rows], top_p)
    uniform = torch.tensor([draw.uniform() for draw in draws], dtype=torch.float64, device=scores.device)
    return _invert(probabilities, uniform)


def _invert(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The token at `uniform` of each row's cumulative weights, in the order of token ids: first the block of ids that
    holds it, then the id in the block. Running sums over whole rows would take longer than a small model's step.
    """
    vocabulary = weights.shape[-1]
    if vocabulary % BLOCK:
        weights = torch.nn.functional.pad(weights, (0, -vocabulary % BLOCK))
    blocks = weights.view(len(weights), -1, BLOCK)
    up_to = torch.nn.functional.pad(blocks.sum(dim=-1).double().cumsum(dim=-1), (1, 0))
    target = uniform[:, None] * up_to[:, -1:]
    block = _first_above(up_to[:, 1:].contiguous(), target)
    start, end = up_to.gather(-1, block), up_to.gather(-1, block + 1)
    part = ((target - start) / (end - start)).clamp_(max=1.0 - 2.0**-UNIFORM_BITS)
    inside = blocks[torch.arange(len(blocks), device=blocks.device), block[:, 0]].double().cumsum(dim=-1)
    token = block * BLOCK + _first_above(inside, part * inside[:, -1:])
    return token.squeeze(-1).clamp_(max=vocabulary - 1)


def _first_above(cumulative: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Strictly above, so that nothing of weight zero is ever found. NaN (broken weights) is clamped into bounds."""
    return torch.searchsorted(cumulative, target, right=True).clamp_(max=cumulative.shape[-1] - 1)


def _nucleus(probabilities: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Zero what lies outside the smallest set of likeliest tokens that together reach top_p (rows)."""
    guess = min(NUCLEUS_GUESS, probabilities.shape[-1])
    ordered = probabilities.topk(guess, dim=-1).values
    cumulative = ordered.cumsum(dim=-1)
    if bool((cumulative[:, -1] < top_p).any()):
        ordered = probabilities.sort(dim=-1, descending=True).values
        cumulative = ordered.cumsum(dim=-1)
    outside = cumulative - ordered >= top_p[:, None]  # what comes before is enough already; the first always stays
    smallest = ordered.masked_fill(outside, torch.inf).amin(dim=-1, keepdim=True)
    return probabilities.masked_fill(probabilities < smallest, 0.0)
