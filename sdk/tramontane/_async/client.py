"""The client."""

from __future__ import annotations

import os
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Optional, Type

import httpx

from tramontane._async.account import AsyncLimits, AsyncModels, AsyncUsage, AsyncUsers
from tramontane._async.admin import AsyncAdmin
from tramontane._async.chat import AsyncChat
from tramontane._async.inference import AsyncEmbeddings, AsyncFim
from tramontane._async.transport import AsyncTransport
from tramontane.timing import AsyncTiming
from tramontane.wire.config import Retries, Timeouts, configure

if TYPE_CHECKING:
    from typing_extensions import Self


class AsyncTramontane:
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
        transport: Optional[httpx.AsyncBaseTransport] = None,
        http_client: Optional[httpx.AsyncClient] = None,
        timing: Optional[AsyncTiming] = None,
    ) -> None:
        config = configure(os.environ, api_key=api_key, base_url=base_url, timeouts=timeouts, retries=retries)
        http = httpx.AsyncClient(transport=transport) if http_client is None else http_client
        self._use(AsyncTransport(config, http, timing or AsyncTiming(), owns_http=http_client is None))

    def _use(self, transport: AsyncTransport) -> None:
        self._transport = transport
        self.chat = AsyncChat(transport)
        self.fim = AsyncFim(transport)
        self.embeddings = AsyncEmbeddings(transport)
        self.models = AsyncModels(transport)
        self.usage = AsyncUsage(transport)
        self.limits = AsyncLimits(transport)
        self.users = AsyncUsers(transport)
        self.admin = AsyncAdmin(transport)

    def with_options(
        self, *, timeouts: Optional[Timeouts] = None, retries: Optional[Retries] = None
    ) -> AsyncTramontane:
        """The same client with other patience, over the same connections."""
        before = self._transport.config
        config = replace(before, timeouts=timeouts or before.timeouts, retries=retries or before.retries)
        made = object.__new__(AsyncTramontane)
        made._use(self._transport.with_config(config))
        return made

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._transport.aclose()

    def __repr__(self) -> str:
        return f"AsyncTramontane(base_url={self._transport.config.base_url!r})"
