"""A streamed answer."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, AsyncIterator, List, Optional, Type

from tramontane._async.transport import AsyncBody, AsyncTransport
from tramontane.errors import TramontaneError
from tramontane.types import ChatChunk, ChatCompletion
from tramontane.wire.calls import Call
from tramontane.wire.decode import Meta
from tramontane.wire.failures import request_id_of
from tramontane.wire.streaming import ChunkReader

if TYPE_CHECKING:
    from typing_extensions import Self


class AsyncChatStream:
    """Begins when it is entered or first iterated; a request that is refused raises there. Iterating gives chunks,
    `texts()` only the text. Leaving the loop or the `with` block, or `aclose()`, cancels what has not come yet: the
    platform stops, and bills what it had delivered.
    """

    def __init__(self, transport: AsyncTransport, call: Call[ChatCompletion]) -> None:
        self._transport = transport
        self._call = call
        self._body: Optional[AsyncBody] = None
        self._reader: Optional[ChunkReader] = None
        self._closed = False

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[ChatChunk]:
        try:
            while (chunks := await self._more()) is not None:
                for chunk in chunks:
                    yield chunk
        finally:
            await self.aclose()

    async def texts(self) -> AsyncIterator[str]:
        """The text of the first choice, piece by piece."""
        try:
            while (chunks := await self._more()) is not None:
                for chunk in chunks:
                    for choice in chunk.choices:
                        if choice.index == 0 and choice.delta.content:
                            yield choice.delta.content
        finally:
            await self.aclose()

    async def until_done(self) -> ChatCompletion:
        """Reads the rest and returns the whole answer. Raises TramontaneError."""
        try:
            while await self._more() is not None:
                pass
        finally:
            await self.aclose()
        return self.completion

    @property
    def completion(self) -> ChatCompletion:
        """What has come so far, as an answer that was not streamed. Raises UnexpectedAnswer before its first chunk."""
        return self._begun().completion()

    @property
    def meta(self) -> Meta:
        """What the headers said; its `request_id` too."""
        return self._begun().meta

    async def aclose(self) -> None:
        self._closed = True
        if self._body is not None:
            await self._body.aclose()

    def _begun(self) -> ChunkReader:
        if self._reader is None:
            raise RuntimeError("the stream has not begun: enter or iterate it first")
        return self._reader

    async def _begin(self) -> ChunkReader:
        if self._reader is None:
            transport = self._transport
            began_s = transport.timing.now_s()
            self._body = await transport.open(self._call)
            meta = Meta(self._body.status, self._body.headers, request_id_of(self._body.headers))
            self._reader = ChunkReader(meta, transport.config.timeouts, began_s, self._body.ends_s)
        return self._reader

    async def _more(self) -> Optional[List[ChatChunk]]:
        """None after the end. Raises TramontaneError."""
        if self._closed:
            return None
        reader = await self._begin()
        if reader.failure is not None:
            raise reader.failure
        if reader.done or self._body is None:
            return None
        failure: TramontaneError
        try:
            raw = await self._body.read()
        except TramontaneError as error:
            failure = reader.told(error)
        else:
            return reader.feed(raw, self._transport.timing.now_s())
        raise failure
