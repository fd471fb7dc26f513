"""A streamed answer."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Iterator, Callable, Deque, List, Optional, Type, TypeVar

from tramontane._sync.transport import Body, Transport
from tramontane.errors import TramontaneError
from tramontane.types import ChatChunk, ChatCompletion
from tramontane.wire.calls import Call
from tramontane.wire.decode import Meta
from tramontane.wire.failures import request_id_of
from tramontane.wire.streaming import More, ChunkReader, as_they_are, texts_of

if TYPE_CHECKING:
    from typing_extensions import Self


Item = TypeVar("Item")


class Flat(Iterator[Item]):
    """The items of each batch of chunks, one by one."""

    def __init__(self, more: More, items: Callable[[List[ChatChunk]], List[Item]]) -> None:
        self._more = more
        self._items = items
        self._ready: Deque[Item] = deque()

    def __next__(self) -> Item:
        while not self._ready:
            chunks = self._more()
            if chunks is None:
                raise StopIteration
            self._ready.extend(self._items(chunks))
        return self._ready.popleft()


class ChatStream:
    """Begins when it is entered or first iterated; a request that is refused raises there. Iterating gives chunks,
    `texts()` only the text. Leaving the loop or the `with` block, or `close()`, cancels what has not come yet: the
    platform stops, and bills what it had delivered.
    """

    def __init__(self, transport: Transport, call: Call[ChatCompletion]) -> None:
        self._transport = transport
        self._call = call
        self._body: Optional[Body] = None
        self._reader: Optional[ChunkReader] = None
        self._closed = False
        self._entered = False

    def __enter__(self) -> Self:
        self._entered = True
        self._begin()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[ChatChunk]:
        chunks = Flat(self._more, as_they_are)
        return chunks if self._entered else self._closing(chunks)

    def texts(self) -> Iterator[str]:
        """The text of the first choice, piece by piece."""
        texts = Flat(self._more, texts_of)
        return texts if self._entered else self._closing(texts)

    def until_done(self) -> ChatCompletion:
        """Reads the rest and returns the whole answer. Raises TramontaneError."""
        try:
            while self._more() is not None:
                pass
        finally:
            self.close()
        return self.completion

    @property
    def completion(self) -> ChatCompletion:
        """What has come so far, as an answer that was not streamed. Raises UnexpectedAnswer before its first chunk."""
        return self._begun().completion()

    @property
    def meta(self) -> Meta:
        """What the headers said; its `request_id` too."""
        return self._begun().meta

    def close(self) -> None:
        self._closed = True
        if self._body is not None:
            self._body.close()

    def _begun(self) -> ChunkReader:
        if self._reader is None:
            raise RuntimeError("the stream has not begun: enter or iterate it first")
        return self._reader

    def _begin(self) -> ChunkReader:
        if self._reader is None:
            transport = self._transport
            began_s = transport.timing.now_s()
            self._body = transport.open(self._call)
            meta = Meta(self._body.status, self._body.headers, request_id_of(self._body.headers))
            self._reader = ChunkReader(meta, transport.config.timeouts, began_s, self._body.ends_s)
        return self._reader

    def _closing(self, items: Iterator[Item]) -> Iterator[Item]:
        """Outside of `with` it is the loop's end that closes."""
        try:
            for item in items:
                yield item
        finally:
            self.close()

    def _more(self) -> Optional[List[ChatChunk]]:
        """None after the end. Raises TramontaneError."""
        if self._closed:
            return None
        reader = self._begin()
        if reader.failure is not None:
            raise reader.failure
        if reader.done or self._body is None:
            return None
        failure: TramontaneError
        try:
            raw = self._body.read()
        except TramontaneError as error:
            failure = reader.told(error)
        else:
            return reader.feed(raw, self._transport.timing.now_s())
        raise failure
