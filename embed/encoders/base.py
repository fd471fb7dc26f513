"""The seam between batching and whatever turns a text into a vector; `tests/contracts/encoders` holds for each."""

from collections.abc import Sequence
from typing import Protocol


class Encoder(Protocol):
    """Everything but `dimensions` is called from one thread, the same for all calls."""

    @property
    def dimensions(self) -> int: ...

    def load(self) -> None:
        """Read the weights, seconds to minutes; SetupError if they do not fit what the tier promises."""

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """One vector per text, in order: `dimensions` little-endian float32. A text's vector does not depend on the
        others beyond rounding. Whatever it raises is taken as the fault of at least one of the texts.
        """

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text with special ones, however long it is."""

    def close(self) -> None: ...
