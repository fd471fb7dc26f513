"""What both shells know of httpx: the key, time limits, and what its exceptions mean."""

from __future__ import annotations

from typing import Generator, Mapping

import httpx

from tramontane.errors import ConnectFailed, ConnectionLost, TramontaneError
from tramontane.secret import Secret
from tramontane.wire.tries import Limits

ANSWER_BYTES_MAX = 64 * 1024 * 1024
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class BearerAuth(httpx.Auth):
    """Puts the key on a request at the last moment, so that nothing else ever holds it."""

    def __init__(self, key: Secret) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["authorization"] = f"Bearer {self._key.reveal()}"
        yield request


def timeout_of(limits: Limits) -> httpx.Timeout:
    return httpx.Timeout(limits.read_s, connect=limits.connect_s, pool=limits.connect_s)


def pause_within(response: httpx.Response, seconds: float) -> None:
    """From now on the body may pause for so long: httpx reads the limit when it begins with the body."""
    response.request.extensions["timeout"]["read"] = seconds


def headers_of(response: httpx.Response) -> Mapping[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def failure_from(error: httpx.RequestError) -> TramontaneError:
    """Raise it where httpx's own exception is no longer handled: that one holds the request, and so the key."""
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, NOT_SENT):
        return ConnectFailed(reason)
    return ConnectionLost(reason)
