"""Identifiers and randomness as an argument."""

import itertools
import secrets
from typing import Protocol

from core.clock import Clock


class IdSource(Protocol):
    def request_id(self, cell: str) -> str:
        """32 hexadecimal digits: two of the cell, twelve of the time in ms, eighteen random."""

    def token(self, length_bytes: int) -> str:
        """Random hexadecimal digits, twice as many as bytes."""


class SystemIds:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def request_id(self, cell: str) -> str:
        return f"{cell}{self._clock.now_ms():012x}{secrets.token_hex(9)}"

    def token(self, length_bytes: int) -> str:
        return secrets.token_hex(length_bytes)


class CountingIds:
    """The same ids in the same order, for tests and simulations."""

    def __init__(self) -> None:
        self._next = itertools.count(1)

    def request_id(self, cell: str) -> str:
        return f"{cell}{next(self._next):030x}"

    def token(self, length_bytes: int) -> str:
        return f"{next(self._next):0{2 * length_bytes}x}"
