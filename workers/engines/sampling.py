"""How tokens are drawn, row by row, independent of what else is in the batch.

Each choice of each request has its own sequence of uniform numbers, a hash of (seed, choice, position): the same seed
gives the same text alone, in any batch, and when a choice is continued from tokens that an earlier attempt delivered.

The order of things: log probabilities (of what the model said, before anything below), repetition penalty (over prompt
and output), presence and frequency penalties (over the output), min_tokens and grammar, temperature, top_k, top_p.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

import torch

from core.wire import Sampling, TokenLogprob
from workers.engines.grammar import Constraint

GREEDY_BELOW = 1e-5  # dividing by less overflows float32, and nothing but the largest logit would ever be drawn
UNIFORM_BITS = 52  # so that uniform * total < total also after rounding to a double
BLOCK = 128
ATTEMPTS_MAX = 8  # top_p 0.9 misses all of them once in 10^8 times


class Draw:
    """The sampling state of one choice: what was put out so far, and the uniform number for the next position.

    `reports` has one entry for each token drawn here, if log probabilities were asked for: the token's own, and the
    `logprobs` likeliest at its place.
    """

    def __init__(
        self,
        sampling: Sampling,
        request_id: str,
        choice: int,
        emitted_ids: Sequence[int],
        prompt_ids: Sequence[int] = (),
        constraint: Constraint | None = None,
    ) -> None:
        self.temperature = sampling.temperature
        self.top_p = sampling.top_p
        self.top_k = sampling.top_k
        self.min_tokens = sampling.min_tokens
        self.presence_penalty = sampling.presence_penalty
        self.frequency_penalty = sampling.frequency_penalty
        self.repetition_penalty = sampling.repetition_penalty
        self.logprobs = sampling.logprobs
        self.constraint = constraint
        self.position = self.begun_at = len(emitted_ids)
        self.counts = Counter(emitted_ids)
        self.seen = {*prompt_ids, *emitted_ids} if self.repetition_penalty != 1.0 else set()
        self.reports: list[TokenLogprob] = []
        self.is_plain = not (self.min_tokens or constraint or self.is_penalised or self.logprobs is not None)
        seed = f"request {request_id}" if sampling.seed is None else f"seed {sampling.seed}"
        self._key = f"{seed} choice {choice} position ".encode()

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def is_penalised(self) -> bool:
        return self.presence_penalty != 0.0 or self.frequency_penalty != 0.0 or self.repetition_penalty != 1.0

    def append(self, token_id: int) -> None:
        self.position += 1
        self.counts[token_id] += 1
        if self.repetition_penalty != 1.0:
            self.seen.add(token_id)
        if self.constraint is not None:
            self.constraint.append(token_id)

    def report(self, report: TokenLogprob) -> None:
        """For the current position; a position that had to be computed again is reported again."""
        del self.reports[self.position - self.begun_at :]
        self.reports.append(report)

    def uniform(self, attempt: int = 0) -> float:
        """In [0, 1), the same for the same seed, choice, position and attempt."""
        digest = hashlib.blake2b(self._key + f"{self.position} {attempt}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest, "little") >> (64 - UNIFORM_BITS)) * 2.0**-UNIFORM_BITS


def choose(scores: torch.Tensor, draws: Sequence[Draw], eos_ids: Sequence[int]) -> None:
    """Change `scores` (float32, at least len(draws) rows x vocabulary) so that the largest of row i is the next token
    of draws[i].
    """
    adjusted = [row for row, draw in enumerate(draws) if not draw.is_plain]
    reported = [row for row in adjusted if draws[row].logprobs is not None]
    said = torch.log_softmax(scores[reported], dim=-1) if reported else scores
    for row in adjusted:
        _adjust(scores[row], draws[row], eos_ids)
    sampled = [row for row, draw in enumerate(draws) if not draw.is_greedy]
    if sampled:
        rows = torch.tensor(sampled, device=scores.device)
        # Copying rows of a whole vocabulary is as dear as any other pass over them; mostly all are sampled.
        picked = scores[: len(draws)] if len(sampled) == len(draws) else scores[rows]
        scores[rows, _sample(picked, [draws[row] for row in sampled])] = torch.inf
    if reported:
        _report(said, scores[reported].argmax(dim=-1), [draws[row] for row in reported])


def _adjust(row: torch.Tensor, draw: Draw, eos_ids: Sequence[int]) -> None:
    if draw.seen:
        ids = torch.tensor(list(draw.seen), device=row.device)
        seen = row[ids]
        row[ids] = torch.where(seen < 0, seen * draw.repetition_penalty, seen / draw.repetition_penalty)
    if draw.is_penalised and draw.counts:
        ids = torch.tensor(list(draw.counts), device=row.device)
        times = torch.tensor(list(draw.counts.values()), dtype=row.dtype, device=row.device)
        row[ids] -= draw.presence_penalty + draw.frequency_penalty * times
    may_end = draw.position >= draw.min_tokens
    if draw.constraint is not None:
        allowed = torch.from_numpy(draw.constraint.allowed(end=may_end)[: len(row)])
        row.masked_fill_(~allowed.to(row.device), -torch.inf)
    elif not may_end:
        row[list(eos_ids)] = -torch.inf


def _report(said: torch.Tensor, chosen: torch.Tensor, draws: Sequence[Draw]) -> None:
    """`said` are log probabilities (one row for each draw), `chosen` its token ids."""
    own = said.gather(-1, chosen[:, None])[:, 0].tolist()
    likeliest = said.topk(min(max(draw.logprobs or 0 for draw in draws), said.shape[-1]))
    values, ids = likeliest.values.tolist(), likeliest.indices.tolist()
    for row, draw in enumerate(draws):
        top = tuple(zip(ids[row], values[row], strict=True))[: draw.logprobs]
        draw.report((own[row], top))


def _sample(scores: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """One token id per row. A token outside the nucleus of top_p is drawn again, which is exact and needs no sorting;
    a nucleus so small that it is missed again and again is sorted out.
    """
    _keep_top_k(scores, draws)
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


def _keep_top_k(scores: torch.Tensor, draws: Sequence[Draw]) -> None:
    """Tokens that are as likely as the last one kept stay, too."""
    for row, draw in enumerate(draws):
        if 0 < draw.top_k < scores.shape[-1]:
            least = scores[row].topk(draw.top_k).values[-1]
            scores[row].masked_fill_(scores[row] < least, -torch.inf)


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
