"""Where the accounts' one secret lies, and whose word counts for where a request came from."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from core.secrets import read_secret, secret_file
from core.settings import PlatformSettings
from gateway.accounts.keys import Pepper, Peppers

PEPPER_BYTES = 32
PEPPER_PREFIX = "key_pepper."
OLDER_PEPPERS_MAX = 8


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class AccountSettings(PlatformSettings):
    key_pepper_file: Path | None = Field(
        default=None,
        description="The secret behind all key digests; default: secrets/key_pepper.VERSION in home, made if missing.",
    )
    key_pepper_version: int = Field(
        default=1,
        ge=1,
        description="Of that secret. Raise it for a new one; files of other versions in home still count.",
    )
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=(), description="Networks, comma-separated, whose x-forwarded-for is believed; else the socket counts."
    )
    public_url: str = Field(
        default="", description="Where browsers find the gateway; stands in links. Default: where it listens."
    )
    smtp_url: SecretStr | None = Field(
        default=None,
        description="smtps://, smtp:// (STARTTLS) or smtp+plain://user:password@host:port. Unset: no mail, links are "
        "shown to who makes them.",
    )
    smtp_password_file: Path | None = Field(
        default=None, description="Holds the password of smtp_url, which then has none."
    )
    mail_from: str = Field(default="", description="Sender of mails; needed with smtp_url.")


def peppers_of(settings: AccountSettings) -> Peppers:
    """Read the peppers. The current one is made in home if missing; a file named by the operator must be there; those
    of other versions lie in home. Raises SetupError.
    """
    version = settings.key_pepper_version
    folder = settings.home / "secrets"
    if settings.key_pepper_file is not None:
        current = read_secret(settings.key_pepper_file)
    else:
        current = secret_file(folder / f"{PEPPER_PREFIX}{version}", PEPPER_BYTES)
    files = {int(path.name.removeprefix(PEPPER_PREFIX)): path for path in folder.glob(f"{PEPPER_PREFIX}[1-9]*")}
    older = sorted((number for number in files if number != version), reverse=True)[:OLDER_PEPPERS_MAX]
    return Peppers(Pepper(version, current), tuple(Pepper(number, read_secret(files[number])) for number in older))
