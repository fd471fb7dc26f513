"""An encoder without weights: the same text always gives the same unit vector, unrelated texts are near orthogonal.

For tests, benchmarks of everything else, and drills: a text that holds the marker makes it fail.
"""

from collections.abc import Sequence
from hashlib import shake_128

import numpy as np

from core.text_counter import WordCounter

FAULT_MARKER = "[[fail]]"


class EncoderFaultError(Exception):
    """The failure that was asked for."""


class HashEncoder:
    def __init__(self, dimensions: int, fault_marker: str = FAULT_MARKER) -> None:
        self._dimensions = dimensions
        self._fault_marker = fault_marker
        self._counter = WordCounter()

    @property
    def dimensions(self) -> int:
        return self._dimensions

    def load(self) -> None:
        pass

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        if any(self._fault_marker in text for text in texts):
            raise EncoderFaultError(f"a text holds {self._fault_marker}")
        return [self._vector(text) for text in texts]

    def count(self, texts: Sequence[str]) -> list[int]:
        return self._counter.count(texts)

    def close(self) -> None:
        pass

    def _vector(self, text: str) -> bytes:
        digest = shake_128(text.encode()).digest(4 * self._dimensions)
        values = np.frombuffer(digest, dtype="<i4").astype(np.float64)
        return (values / np.linalg.norm(values)).astype("<f4").tobytes()
