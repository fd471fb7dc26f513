"""API keys: `tmt_<public id>_<secret><checksum>`.

The prefix is what secret scanners look for, the id may be shown anywhere, the checksum (CRC-32 of all before it)
refuses typos without a look-up. At rest there is only a keyed digest of the whole key.
"""

import hmac
import string
import zlib
from dataclasses import dataclass

from pydantic import SecretStr

from core.ids import IdSource

PREFIX = "tmt"
ID_LENGTH = 10
SECRET_LENGTH = 32  # 190 bits
CHECKSUM_LENGTH = 6
HINT_LENGTH = 4
KEY_LENGTH = len(PREFIX) + 1 + ID_LENGTH + 1 + SECRET_LENGTH + CHECKSUM_LENGTH

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_BYTES = 32  # far more than is used, so that the remainder's bias is nothing


@dataclass(frozen=True, slots=True)
class Pepper:
    """The secret of all digests. The version stands before each digest, so that a later pepper can follow."""

    version: int
    secret: SecretStr

    def digest(self, key: str) -> str:
        """HMAC-SHA256 of a whole key, about 2 us."""
        pepper = self.secret.get_secret_value().encode()
        return f"{self.version}:{hmac.digest(pepper, key.encode(), 'sha256').hex()}"


@dataclass(frozen=True, slots=True)
class Peppers:
    """New digests are made with `current`; those made with `older` ones are still known."""

    current: Pepper
    older: tuple[Pepper, ...] = ()

    def digest(self, key: str) -> str:
        return self.current.digest(key)

    def digests(self, key: str) -> tuple[str, ...]:
        """Every digest under which the key may be kept."""
        return tuple(pepper.digest(key) for pepper in (self.current, *self.older))


@dataclass(frozen=True, slots=True)
class GeneratedKey:
    id: str
    key: SecretStr
    hint: str


def generate_key(ids: IdSource, key_id: str | None = None) -> GeneratedKey:
    """A new key, or a new secret for the key with this id."""
    if key_id is None:
        key_id = _base62(int(ids.token(_RANDOM_BYTES), 16), ID_LENGTH)
    secret = _base62(int(ids.token(_RANDOM_BYTES), 16), SECRET_LENGTH)
    body = f"{PREFIX}_{key_id}_{secret}"
    key = body + _checksum(body)
    return GeneratedKey(id=key_id, key=SecretStr(key), hint=key[-HINT_LENGTH:])


def key_id_of(key: str) -> str | None:
    """The public id, or None if this is no key of ours or was mistyped."""
    if len(key) != KEY_LENGTH or not key.isascii():
        return None
    body, checksum = key[:-CHECKSUM_LENGTH], key[-CHECKSUM_LENGTH:]
    prefix, _, rest = body.partition("_")
    key_id, _, _ = rest.partition("_")
    if prefix != PREFIX or len(key_id) != ID_LENGTH or _checksum(body) != checksum:
        return None
    return key_id


def same_digest(left: str, right: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(left.encode(), right.encode())


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    """The last `length` digits."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
