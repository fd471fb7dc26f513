"""Passwords: argon2id at rest, about 50 ms and 32 MiB for each check.

Called in a thread, with no transaction open: on SQLite it would keep every other writer waiting.
"""

import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

from argon2 import Parameters, PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from core.errors import UNAVAILABLE, VALIDATION, PlatformError

LENGTH_MIN = 12
LENGTH_MAX = 256
AT_ONCE_MAX = 2
WAIT_S = 5.0
# OWASP's least is 19 MiB and 2 passes.
PARAMETERS = Parameters(
    type=Type.ID, version=19, salt_len=16, hash_len=32, time_cost=2, memory_cost=32 * 1024, parallelism=1
)


class Passwords:
    """At most `at_once_max` are worked on at a time, so that a flood of log-ins leaves the requests their processor
    and memory; who waits longer than `wait_s` gets PlatformError (UNAVAILABLE). For any number of threads.
    """

    def __init__(
        self, parameters: Parameters = PARAMETERS, *, at_once_max: int = AT_ONCE_MAX, wait_s: float = WAIT_S
    ) -> None:
        self._hasher = PasswordHasher.from_parameters(parameters)
        self._places = threading.BoundedSemaphore(at_once_max)
        self._wait_s = wait_s
        self._nobodys = self._hasher.hash("nobody's")

    def hash(self, password: str) -> str:
        with self._place():
            return self._hasher.hash(_bytes(password))

    def matches(self, password_hash: str | None, password: str) -> bool:
        """None, for whoever has no password or does not exist, takes as long as any other and is False."""
        with self._place():
            try:
                verified = self._hasher.verify(password_hash or self._nobodys, _bytes(password[:LENGTH_MAX]))
            except (VerificationError, InvalidHashError):
                return False
        return verified and password_hash is not None and len(password) <= LENGTH_MAX

    def outdated(self, password_hash: str) -> bool:
        """Made with other parameters than today's."""
        return self._hasher.check_needs_rehash(password_hash)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(timeout=self._wait_s):
            raise PlatformError(UNAVAILABLE, "Too many people are logging in at once.", retry_after_s=1)
        try:
            yield
        finally:
            self._places.release()


def checked_password(password: str, *, email: str | None) -> str:
    """The password again, or PlatformError (VALIDATION)."""
    if not LENGTH_MIN <= len(password) <= LENGTH_MAX:
        raise PlatformError(VALIDATION, f"A password has {LENGTH_MIN} to {LENGTH_MAX} characters.", param="password")
    if len(set(password)) < LENGTH_MIN // 3 or (email is not None and password.casefold() in {email, email * 2}):
        raise PlatformError(VALIDATION, "This password is too easy to guess.", param="password")
    return password


def _bytes(password: str) -> bytes:
    """However a keyboard composes its letters. Lone surrogates are kept: JSON can carry them."""
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
