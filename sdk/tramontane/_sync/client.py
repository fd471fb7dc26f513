"""The client."""

from __future__ import annotations

import os
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Optional, Type

import httpx

from tramontane._sync.account import Limits, Models, Usage, Users
from tramontane._sync.admin import Admin
from tramontane._sync.chat import Chat
from tramontane._sync.inference import Embeddings, Fim
from tramontane._sync.transport import Transport
from tramontane.timing import Timing
from tramontane.wire.config import Retries, Timeouts, configure

if TYPE_CHECKING:
    from typing_extensions import Self


class Tramontane:
    """A client of one platform with one key. What is not given comes from TRAMONTANE_API_KEY and TRAMONTANE_BASE_URL.
    `transport` replaces the network, for tests; `http_client` brings connections of its own (proxies, certificates) and
    stays the caller's to close. Close the client, or use it as a context manager.
    """

    def __init__(
        self,
        *,
        api_key: Optional[str] = None,
        base_url: Optional[str] = None,
        timeouts: Optional[Timeouts] = None,
        retries: Optional[Retries] = None,
        transport: Optional[httpx.BaseTransport] = None,
        http_client: Optional[httpx.Client] = None,
        timing: Optional[Timing] = None,
    ) -> None:
        config = configure(os.environ, api_key=api_key, base_url=base_url, timeouts=timeouts, retries=retries)
        http = httpx.Client(transport=transport) if http_client is None else http_client
        self._use(Transport(config, http, timing or Timing(), owns_http=http_client is None))

    def _use(self, transport: Transport) -> None:
        self._transport = transport
        self.chat = Chat(transport)
        self.fim = Fim(transport)
        self.embeddings = Embeddings(transport)
        self.models = Models(transport)
        self.usage = Usage(transport)
        self.limits = Limits(transport)
        self.users = Users(transport)
        self.admin = Admin(transport)

    def with_options(
        self, *, timeouts: Optional[Timeouts] = None, retries: Optional[Retries] = None
    ) -> Tramontane:
        """The same client with other patience, over the same connections."""
        before = self._transport.config
        config = replace(before, timeouts=timeouts or before.timeouts, retries=retries or before.retries)
        made = object.__new__(Tramontane)
        made._use(self._transport.with_config(config))
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def __repr__(self) -> str:
        return f"Tramontane(base_url={self._transport.config.base_url!r})"
