"""A streamed answer."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, AsyncIterator, Callable, Deque, List, Optional, Type, TypeVar

from tramontane._async.transport import AsyncBody, AsyncTransport
from tramontane.errors import TramontaneError
from tramontane.types import ChatChunk, ChatCompletion
from tramontane.wire.calls import Call
from tramontane.wire.decode import Meta
from tramontane.wire.failures import request_id_of
from tramontane.wire.streaming import AsyncMore, ChunkReader, as_they_are, texts_of

if TYPE_CHECKING:
    from typing_extensions import Self


Item = TypeVar("Item")


class AsyncFlat(AsyncIterator[Item]):
    """The items of each batch of chunks, one by one."""

    def __init__(self, more: AsyncMore, items: Callable[[List[ChatChunk]], List[Item]]) -> None:
        self._more = more
        self._items = items
        self._ready: Deque[Item] = deque()

    async def __anext__(self) -> Item:
        while not self._ready:
            chunks = await self._more()
            if chunks is None:
                raise StopAsyncIteration
            self._ready.extend(self._items(chunks))
        return self._ready.popleft()


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
        self._entered = False

    async def __aenter__(self) -> Self:
        self._entered = True
        await self._begin()
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[ChatChunk]:
        chunks = AsyncFlat(self._more, as_they_are)
        return chunks if self._entered else self._closing(chunks)

    def texts(self) -> AsyncIterator[str]:
        """The text of the first choice, piece by piece."""
        texts = AsyncFlat(self._more, texts_of)
        return texts if self._entered else self._closing(texts)

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

    async def _closing(self, items: AsyncIterator[Item]) -> AsyncIterator[Item]:
        """Outside of `with` it is the loop's end that closes."""
        try:
            async for item in items:
                yield item
        finally:
            await self.aclose()

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
