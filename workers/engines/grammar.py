"""Answers held to a grammar: llguidance says before each token which tokens may come next.

Grammars are Lark text as llguidance reads it, a JSON schema inside as `%json {...}`. A control token [TOOL_CALLS] is
written <TOOL_CALLS>, as mistral-common does, or <[5]> by its id. What a grammar describes is the text that is shown:
the space that a tokenizer hides in an answer's first token is no part of it.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from workers.text import Vocabulary

COMPILED_MAX = 64  # grammars kept: mostly one request's schema is the next one's too


class Constraint:
    """Where one choice stands in its grammar. To be used by one thread at a time."""

    def __init__(self, matcher: LLMatcher, first: "_FirstTokens", eos_ids: Sequence[int]) -> None:
        self._matcher = matcher
        self._first = first
        self._eos_ids = list(eos_ids)
        self._begun = False

    @property
    def complete(self) -> bool:
        """Nothing but the end may follow."""
        return self._matcher.is_stopped()

    @property
    def broken(self) -> bool:
        """A token that it did not allow came, or it became too complex. Only the end is allowed then."""
        return self._matcher.is_error()

    def append(self, token_id: int) -> None:
        if not self._begun:
            self._begun = True
            token_id = self._first.plain(token_id)
        self._matcher.consume_token(token_id)

    def allowed(self, *, end: bool) -> NDArray[np.bool_]:
        """For each token id whether it may come next. With `end` False no end-of-sequence, unless nothing else may."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        mask = bits.view(np.bool_)
        if not self._begun:
            self._first.widen(mask)
        if not end:
            ends = mask[self._eos_ids]
            mask[self._eos_ids] = False
            if not mask.any():
                mask[self._eos_ids] = ends
        return mask


class _FirstTokens:
    """At the very beginning "▁Yes" is shown as "Yes": it stands for the piece without the space."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        by_text = {vocabulary.surfaces[i]: i for i in reversed(range(len(vocabulary.surfaces)))}
        self._plain = {
            i: by_text[vocabulary.surfaces[i][1:]] for i in vocabulary.strips if vocabulary.surfaces[i][1:] in by_text
        }
        self._strips = np.fromiter(vocabulary.strips, np.int64)
        self._spaced = np.fromiter(self._plain, np.int64)
        self._unspaced = np.fromiter(self._plain.values(), np.int64)

    def plain(self, token_id: int) -> int:
        return self._plain.get(token_id, token_id)

    def widen(self, mask: NDArray[np.bool_]) -> None:
        also = mask[self._unspaced]
        mask[self._strips] = False
        mask[self._spaced] = also


class _Pieces:
    """A vocabulary as llguidance wants it. Ids up to `size` that only the model has are like control pieces."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, eos_id: int, size: int) -> None:
        known = len(vocabulary.surfaces)
        self.eos_token_id = eos_id
        self.tokens = [vocabulary.token_bytes(i) for i in range(known)]
        self.tokens += [f"<unknown_{i}>".encode() for i in range(known, size)]
        self.special_token_ids = [*vocabulary.controls, *range(known, size)]
        for i, piece in vocabulary.controls.items():
            if piece.startswith("[") and piece.endswith("]"):
                self.tokens[i] = f"<{piece[1:-1]}>".encode()
        self._encode = vocabulary.encode

    def __call__(self, text: bytes) -> list[int]:
        return self._encode(text.decode())


class Grammars:
    """Of one model: its vocabulary, and the ids that end its answers. Thread-safe."""

    def __init__(self, vocabulary: Vocabulary, eos_ids: Sequence[int], vocabulary_size: int) -> None:
        size = max(vocabulary_size, len(vocabulary.surfaces))
        self._eos_ids = [i for i in eos_ids if i < size]
        self._first = _FirstTokens(vocabulary)
        self._tokenizer = None
        if self._eos_ids:
            pieces = _Pieces(vocabulary, self._eos_ids[0], size)
            self._tokenizer = LLTokenizer(TokenizerWrapper(pieces), eos_token=self._eos_ids)
        self._compiled: Callable[[str], LLMatcher | None] = functools.lru_cache(COMPILED_MAX)(self._compile)

    def begin(self, grammar: str, emitted_ids: Sequence[int] = ()) -> Constraint | None:
        """After what was put out before. None: it cannot be compiled, or those tokens do not fit it. May take long."""
        compiled = self._compiled(grammar)
        if compiled is None:
            return None
        constraint = Constraint(compiled.deep_copy(), self._first, self._eos_ids)
        for token_id in emitted_ids:
            constraint.append(token_id)
        return None if constraint.broken else constraint

    def _compile(self, grammar: str) -> LLMatcher | None:
        """None also for a model without an end: nothing could follow a complete answer."""
        if self._tokenizer is None:
            return None
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        return None if matcher.is_error() else matcher
