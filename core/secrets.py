"""Secrets of an installation: files that only its owner reads, made at the first start."""

import os
import secrets
import tempfile
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import SecretStr

from core.errors import SetupError


def secret_file(path: Path, length_bytes: int) -> SecretStr:
    """Read the secret, or make it: random hexadecimal digits, twice as many as bytes, mode 0600.

    Several processes may call this at once; all get the one that was written first. Raises SetupError.
    """
    try:
        if not path.exists():
            _create(path, secrets.token_hex(length_bytes))
        return read_secret(path)
    except OSError as error:
        raise SetupError(f"The secret file {path} cannot be made: {error.strerror}.") from error


def read_secret(path: Path) -> SecretStr:
    """The first line of a file that somebody else made. Raises SetupError."""
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"The secret file {path} cannot be read.") from error
    if len(lines) != 1:
        raise SetupError(f"The secret file {path} does not hold exactly one word.")
    return SecretStr(lines[0])


def with_password(url: SecretStr, password: SecretStr) -> SecretStr:
    """The URL with this password, in place of one that it may have. The rest stays as it is."""
    parts = urlsplit(url.get_secret_value())
    before, _, host = parts.netloc.rpartition("@")
    user = before.partition(":")[0]
    netloc = f"{user}:{quote(password.get_secret_value(), safe='')}@{host}"
    return SecretStr(urlunsplit(parts._replace(netloc=netloc)))


def _create(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent)  # mode 0600 from the start
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename it never replaces what another process wrote first
        except FileExistsError:
            return
    finally:
        temporary.unlink()
