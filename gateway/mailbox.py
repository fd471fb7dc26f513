"""What has arrived for one request and was not read yet: bounded, and merged for slow readers."""

import asyncio
from enum import Enum, auto
from io import StringIO

from core.wire import Piece, TokenLogprob
from gateway.replies import Delta

LOGPROB_CHARS = 16  # what one kept probability counts for, against the bound on unread text


class Arrival(Enum):
    KEPT = auto()
    REPEATED = auto()  # sent twice by a worker that did not know that the first time had worked
    GAP = auto()  # something in between is missing
    FULL = auto()  # the reader is hopelessly behind


class Mailbox:
    """One writer (the process's reader loop), one reader (the request's task), both on one event loop."""

    def __init__(self, text_chars_max: int) -> None:
        self._text_chars_max = text_chars_max
        self._bell = asyncio.Event()
        self._following: dict[int, int] = {}
        self._unread_tokens: dict[int, int] = {}
        self._unread_texts: dict[int, StringIO] = {}
        self._unread_ids: dict[int, list[int]] = {}
        self._unread_logprobs: dict[int, list[TokenLogprob]] = {}
        self._text_chars = 0

    def put(self, piece: Piece) -> Arrival:
        """Never waits. Tokens whose text is still held back wait for the piece that brings it."""
        choice, count = piece.choice, len(piece.token_ids)
        following = self._following.get(choice, 0)
        if piece.first_index != following:
            return Arrival.REPEATED if piece.first_index + count <= following else Arrival.GAP
        self._following[choice] = following + count
        self._unread_tokens[choice] = self._unread_tokens.get(choice, 0) + count
        if piece.logprobs and not self._keep_logprobs(piece):
            return Arrival.FULL
        if not piece.text:
            return Arrival.KEPT
        if self._text_chars + len(piece.text) > self._text_chars_max:
            return Arrival.FULL
        self._text_chars += len(piece.text)
        unread = self._unread_texts.get(choice)
        if unread is None:
            unread = self._unread_texts[choice] = StringIO(newline="")
        unread.write(piece.text)
        self._bell.set()
        return Arrival.KEPT

    def take(self) -> list[Delta]:
        """All that is unread, merged to one delta for each choice."""
        deltas = [
            Delta(choice, unread.getvalue(), self._unread_tokens.pop(choice), *self._take_logprobs(choice))
            for choice, unread in self._unread_texts.items()
        ]
        self._unread_texts.clear()
        self._text_chars = 0
        return deltas

    @property
    def received(self) -> int:
        """Tokens of all choices, read or not, since the last clear."""
        return sum(self._following.values())

    def clear(self) -> None:
        """Forget everything: the next attempt begins anew."""
        self._following.clear()
        self._unread_tokens.clear()
        self._unread_texts.clear()
        self._unread_ids.clear()
        self._unread_logprobs.clear()
        self._text_chars = 0

    def ring(self) -> None:
        """Wake the reader for something else than text."""
        self._bell.set()

    async def wait(self) -> None:
        """Until there is text or somebody rang."""
        await self._bell.wait()
        self._bell.clear()

    def _keep_logprobs(self, piece: Piece) -> bool:
        self._text_chars += LOGPROB_CHARS * sum([1 + len(likeliest) for _, likeliest in piece.logprobs])
        self._unread_ids.setdefault(piece.choice, []).extend(piece.token_ids)
        self._unread_logprobs.setdefault(piece.choice, []).extend(piece.logprobs)
        return self._text_chars <= self._text_chars_max

    def _take_logprobs(self, choice: int) -> tuple[tuple[int, ...], tuple[TokenLogprob, ...]]:
        if choice not in self._unread_logprobs:
            return (), ()
        return tuple(self._unread_ids.pop(choice)), tuple(self._unread_logprobs.pop(choice))
