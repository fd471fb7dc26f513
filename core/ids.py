"""Identifiers and randomness as an argument."""

import hashlib
import itertools
import secrets
import string
from typing import Protocol

from core.clock import Clock

_LETTERS = string.digits + string.ascii_letters
_TOOL_CALL_ID_CHARS = 9


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


def made_ms(request_id: str) -> int:
    """When the id was drawn: what every telling of the same answer can name as its time."""
    return int(request_id[2:14], 16)


def tool_call_id(request_id: str, choice: int, index: int) -> str:
    """Nine letters and digits: of a request id nobody can foresee, and the same whenever the answer is told again."""
    raw = f"{request_id}:{choice}:{index}".encode()
    number = int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big")
    letters = []
    for _ in range(_TOOL_CALL_ID_CHARS):
        number, letter = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[letter])
    return "".join(letters)
