"""How tokens are drawn, row by row, independent of what else is in the batch.

Each choice of each request has its own sequence of uniform numbers, a hash of (seed, choice, position): the same seed
gives the same text alone, in any batch, and when a choice is continued from tokens that an earlier attempt delivered.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

import torch

from core.wire import Sampling

GREEDY_BELOW = 1e-5  # dividing by less overflows float32, and nothing but the largest logit would ever be drawn
UNIFORM_BITS = 52  # so that uniform * total < total also after rounding to a double
BLOCK = 128
ATTEMPTS_MAX = 8  # top_p 0.9 misses all of them once in 10^8 times


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

    def uniform(self, attempt: int = 0) -> float:
        """In [0, 1), the same for the same seed, choice, position and attempt."""
        digest = hashlib.blake2b(self._key + f"{self.position} {attempt}".encode(), digest_size=8).digest()
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
    """One token id per row. A token outside the nucleus of top_p is drawn again, which is exact and needs no sorting;
    a nucleus so small that it is missed again and again is sorted out.
    """
    temperatures = torch.tensor([draw.temperature for draw in draws], device=scores.device)
    probabilities = torch.softmax(scores / temperatures[:, None], dim=-1)
    chosen = _invert(probabilities, _uniform(draws, 0))
    rows = _outside(probabilities, chosen, draws, range(len(draws)))
    for attempt in range(1, ATTEMPTS_MAX):
        if not rows:
            return chosen
        chosen[rows] = _invert(probabilities[rows], _uniform([draws[row] for row in rows], attempt))
        rows = _outside(probabilities, chosen, draws, rows)
    if rows:
        top_p = torch.tensor([draws[row].top_p for row in rows], device=scores.device)
        uniform = _uniform([draws[row] for row in rows], ATTEMPTS_MAX)
        chosen[rows] = _invert(_nucleus(probabilities[rows], top_p), uniform)
    return chosen


def _uniform(draws: Sequence[Draw], attempt: int) -> torch.Tensor:
    return torch.tensor([draw.uniform(attempt) for draw in draws], dtype=torch.float64)


def _outside(
    probabilities: torch.Tensor, chosen: torch.Tensor, draws: Sequence[Draw], rows: Iterable[int]
) -> list[int]:
    """Those of `rows` whose token is outside its nucleus: likelier tokens alone reach top_p."""
    narrow = [row for row in rows if draws[row].top_p < 1.0]
    if not narrow:
        return []
    part = probabilities[narrow]
    own = part.gather(-1, chosen[narrow, None])
    likelier = part.masked_fill_(part <= own, 0.0).sum(dim=-1).tolist()
    return [row for row, mass in zip(narrow, likelier, strict=True) if mass >= draws[row].top_p]


def _invert(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The token at `uniform` of each row's cumulative weights, in the order of token ids: first the block of ids that
    holds it, then the id in the block. Running sums over whole rows would take longer than a small model's step.
    """
    vocabulary = weights.shape[-1]
    if vocabulary % BLOCK:
        weights = torch.nn.functional.pad(weights, (0, -vocabulary % BLOCK))
    blocks = weights.view(len(weights), -1, BLOCK)
    up_to = torch.nn.functional.pad(blocks.sum(dim=-1).double().cumsum(dim=-1), (1, 0))
    target = uniform.to(weights.device)[:, None] * up_to[:, -1:]
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
    ordered = probabilities.sort(dim=-1, descending=True).values
    cumulative = ordered.cumsum(dim=-1)
    outside = cumulative - ordered >= top_p[:, None]  # what comes before is enough already; the first always stays
    smallest = ordered.masked_fill(outside, torch.inf).amin(dim=-1, keepdim=True)
    return probabilities.masked_fill(probabilities < smallest, 0.0)
