"""Fill-in-the-middle, and embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Mapping, Optional, Sequence, Union

from tramontane._sync.streams import ChatStream
from tramontane._sync.transport import Transport
from tramontane.errors import TooManyTokens
from tramontane.types import ChatCompletion, EmbeddingResponse
from tramontane.wire.chat import fim_call
from tramontane.wire.embeddings import EmbeddingJob

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tramontane.wire.chat import FimOptions


class Fim:
    """Text between a prompt and a suffix, by models that have the capability `completion_fim`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def complete(self, *, model: str, prompt: str, **options: Unpack[FimOptions]) -> ChatCompletion:
        """Raises TramontaneError."""
        return self._transport.run(fim_call(model, prompt, options))

    def stream(self, *, model: str, prompt: str, **options: Unpack[FimOptions]) -> ChatStream:
        return ChatStream(self._transport, fim_call(model, prompt, options, stream=True))


class Embeddings:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        model: str,
        input: Union[str, Sequence[str]],
        on_progress: Optional[Callable[[int, int], None]] = None,
        output_dimension: Optional[int] = None,
        metadata: Optional[Mapping[str, Any]] = None,
    ) -> EmbeddingResponse:
        """A vector for each text, in their order. Any number of texts: they are sent in as many requests as the
        platform's bounds demand. `on_progress` is told how many are done, of how many. Raises TramontaneError.
        """
        job = EmbeddingJob(model, input, output_dimension=output_dimension, metadata=metadata)
        while job.batches:
            batch = job.batches[0]
            try:
                response = self._transport.run(job.call(batch))
            except TooManyTokens as error:
                job.refused(batch, error)
                continue
            job.accept(batch, response)
            if on_progress is not None:
                on_progress(job.done, len(job.texts))
        return job.response()
