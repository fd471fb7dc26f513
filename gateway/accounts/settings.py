"""Where the accounts' one secret lies."""

from pathlib import Path

from pydantic import Field

from core.secrets import read_secret, secret_file
from core.settings import PlatformSettings
from gateway.accounts.keys import Pepper

PEPPER_VERSION = 1
PEPPER_BYTES = 32


class AccountSettings(PlatformSettings):
    key_pepper_file: Path | None = Field(
        default=None,
        description="The secret behind all key digests; default: secrets/key_pepper.1 in home, made if missing.",
    )


def pepper_of(settings: AccountSettings) -> Pepper:
    """Read the pepper; in home it is made if missing, a file named by the operator must be there. Raises SetupError."""
    if settings.key_pepper_file is not None:
        return Pepper(PEPPER_VERSION, read_secret(settings.key_pepper_file))
    path = settings.home / "secrets" / f"key_pepper.{PEPPER_VERSION}"
    return Pepper(PEPPER_VERSION, secret_file(path, PEPPER_BYTES))
