"""What waits to be sent while a send is under way: one message per submitter, pieces of the same choice merged.

So a slow Redis makes messages larger, not more. The loop bounds it: `tokens` against its maximum, ends by its slots.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from core.queue.base import Finish
from core.wire import Event, Piece, TokenLogprob


@dataclass(slots=True)
class _Gathered:
    """Consecutive pieces of one choice."""

    first: Piece
    token_ids: list[int]
    texts: list[str]
    logprobs: list[TokenLogprob]

    def piece(self) -> Piece:
        first = self.first
        return replace(first, token_ids=tuple(self.token_ids), text="".join(self.texts), logprobs=tuple(self.logprobs))


_Line = dict[tuple[str, int], Piece | _Gathered]


@dataclass(frozen=True, slots=True)
class Batch:
    """`finishes` are to be settled before the replies are sent, for their ends belong behind the last pieces."""

    replies: dict[str, list[Event]]
    finishes: list[tuple[str, Finish]]


@dataclass(slots=True)
class Outbox:
    """Pieces by submitter and choice; the order within a choice is kept, which is all that a reader can tell."""

    tokens: int = 0
    _lines: dict[str, _Line] = field(default_factory=dict)
    _finishes: list[tuple[str, Finish]] = field(default_factory=list)

    def add(self, submitter: str, piece: Piece) -> None:
        self.tokens += len(piece.token_ids)
        line = self._lines.get(submitter)
        if line is None:
            line = self._lines[submitter] = {}
        key = (piece.request_id, piece.choice)
        before = line.get(key)
        if before is None:
            line[key] = piece
        elif isinstance(before, Piece):
            line[key] = _Gathered(
                before,
                [*before.token_ids, *piece.token_ids],
                [before.text, piece.text],
                [*before.logprobs, *piece.logprobs],
            )
        else:
            before.logprobs += piece.logprobs
            before.token_ids += piece.token_ids
            before.texts.append(piece.text)

    def finish(self, submitter: str, finish: Finish) -> None:
        self._finishes.append((submitter, finish))

    def forget(self, request_id: str) -> None:
        """Nothing of this request is to be sent or settled any more."""
        for line in self._lines.values():
            for key in [key for key in line if key[0] == request_id]:
                self.tokens -= _size(line.pop(key))
        self._finishes = [entry for entry in self._finishes if entry[1].end.request_id != request_id]

    def empty(self) -> Batch:
        """Everything, and begin anew."""
        replies = {submitter: _events(line) for submitter, line in self._lines.items() if line}
        batch = Batch(replies, self._finishes)
        self.tokens, self._lines, self._finishes = 0, {}, []
        return batch


def _events(line: Mapping[tuple[str, int], Piece | _Gathered]) -> list[Event]:
    return [entry if isinstance(entry, Piece) else entry.piece() for entry in line.values()]


def _size(entry: Piece | _Gathered) -> int:
    return len(entry.token_ids)
