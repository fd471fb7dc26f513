"""Which texts are encoded together: a token budget for each pass, little padding, no request that blocks another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

# A pass computes every text as long as its longest. Above this part of the budget another pass is cheaper.
PADDING_PART = 32


@dataclass(frozen=True, slots=True)
class Item:
    """One text of a request; `tokens` with special ones."""

    request_id: str
    index: int
    text: str
    tokens: int


class Batcher:
    """Holds what waits. A batch is chosen only when it is asked for, from all that waits at that moment."""

    def __init__(self, tokens_max: int) -> None:
        self._tokens_max = tokens_max
        self._waiting: dict[str, list[Item]] = {}  # in turn; each with its longest text last

    def __len__(self) -> int:
        """Texts that wait."""
        return sum(len(items) for items in self._waiting.values())

    def add(self, request_id: str, items: Sequence[Item]) -> None:
        """At the end of the turn; a request is added once."""
        if items:
            self._waiting[request_id] = sorted(items, key=lambda item: item.tokens)

    def drop(self, request_id: str) -> None:
        """Forget what still waits of a request."""
        self._waiting.pop(request_id, None)

    def next_batch(self) -> list[Item]:
        """Texts whose number times the longest is within the budget, or a single one; empty if nothing waits.

        It always holds a text of the request whose turn it is, so each waits for at most as many batches as there
        are requests before it.
        """
        if not self._waiting:
            return []
        first = next(iter(self._waiting))
        turn = self._waiting[first][-1]
        batch = next(batch for batch in split(self._round(), self._tokens_max) if turn in batch)
        self._take(batch)
        if first in self._waiting:
            self._waiting[first] = self._waiting.pop(first)
        return batch

    def _round(self) -> list[Item]:
        """The longest text of each request in turn, then the second of each, until the budget is used up."""
        chosen: list[Item] = []
        left = self._tokens_max
        for item in chain.from_iterable(zip_longest(*(reversed(items) for items in self._waiting.values()))):
            if item is None:
                continue
            if chosen and item.tokens > left:
                break
            chosen.append(item)
            left -= item.tokens
        return chosen

    def _take(self, batch: Sequence[Item]) -> None:
        taken = {(item.request_id, item.index) for item in batch}
        for request_id in {item.request_id for item in batch}:
            rest = [item for item in self._waiting[request_id] if (request_id, item.index) not in taken]
            if rest:
                self._waiting[request_id] = rest
            else:
                del self._waiting[request_id]


def split(items: Sequence[Item], tokens_max: int) -> Iterator[list[Item]]:
    """Cut into passes of similar lengths, each within the budget with its padding."""
    padding_max = tokens_max // PADDING_PART
    batch: list[Item] = []
    tokens = 0
    for item in sorted(items, key=lambda item: item.tokens):
        too_many = (len(batch) + 1) * item.tokens > tokens_max
        if batch and (too_many or len(batch) * item.tokens - tokens > padding_max):
            yield batch
            batch, tokens = [], 0
        batch.append(item)
        tokens += item.tokens
    if batch:
        yield batch
