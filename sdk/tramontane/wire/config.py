"""Where the platform is, with which key, and how patient the client is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Optional
from urllib.parse import urlsplit

from tramontane.errors import ConfigurationError
from tramontane.secret import Secret

KEY_VARIABLE = "TRAMONTANE_API_KEY"
URL_VARIABLE = "TRAMONTANE_BASE_URL"
URL_DEFAULT = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Timeouts:
    """Seconds. `first_token_s` bounds the wait for a stream's first text, `idle_s` the silence in its middle (while a
    platform works without having text yet, it says so every 10 s), `total_s` everything, all tries together.
    """

    connect_s: float = 5.0
    first_token_s: float = 120.0
    idle_s: float = 60.0
    total_s: float = 900.0


@dataclass(frozen=True)
class Retries:
    """Between tries lies a random time from 0 to `backoff_s`, doubled each time up to `backoff_s_max`, on top of what
    Retry-After demands. A demand beyond `retry_after_s_max` is not waited for: the error is raised at once.
    """

    tries_max: int = 4
    backoff_s: float = 0.5
    backoff_s_max: float = 8.0
    retry_after_s_max: float = 60.0


@dataclass(frozen=True)
class Config:
    """`base_url` is without /v1 and without a slash at its end."""

    api_key: Secret
    base_url: str
    timeouts: Timeouts
    retries: Retries


def configure(
    environ: Mapping[str, str],
    *,
    api_key: Optional[str],
    base_url: Optional[str],
    timeouts: Optional[Timeouts],
    retries: Optional[Retries],
) -> Config:
    """What is not said comes from the environment. Raises ConfigurationError."""
    key = (api_key if api_key is not None else environ.get(KEY_VARIABLE, "")).strip()
    if not key:
        raise ConfigurationError(f"give api_key, or set {KEY_VARIABLE}")
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError("api_key holds characters that no key has")
    url = base_url if base_url is not None else environ.get(URL_VARIABLE) or URL_DEFAULT
    return Config(Secret(key), checked_url(url), timeouts or Timeouts(), retries or Retries())


def checked_url(url: str) -> str:
    """With or without /v1. Raises ConfigurationError; its text does not repeat what may hold a password."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError("base_url begins with http:// or https:// and names a host")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError("base_url holds an address only: no password, no query")
    path = parts.path.rstrip("/")
    path = path.removesuffix("/v1")
    return f"{parts.scheme}://{parts.netloc}{path}"
