"""Embeddings of any number of texts: cut into requests that the platform allows, and put together again."""

from __future__ import annotations

import base64
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Deque, List, Optional, Sequence, Union

from tramontane.errors import TooManyTokens, UnexpectedAnswer
from tramontane.types import Embedding, EmbeddingResponse, Usage
from tramontane.wire.calls import Call, given
from tramontane.wire.decode import Answer, decode

PATH = "/v1/embeddings"
TEXTS_MAX = 256
TOKENS_MAX = 16_384
BYTES_PER_TOKEN = 3  # a cautious guess: of English a token has about 4.5, of other scripts fewer
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Batch:
    """`texts` begins at the text number `start`."""

    start: int
    texts: Sequence[str] = field(repr=False)


@dataclass(frozen=True)
class _Item(Answer):
    index: int
    embedding: Any


@dataclass(frozen=True)
class _Response(Answer):
    model: str
    data: List[_Item]
    usage: Usage
    id: str = ""


class EmbeddingJob:
    """Ask for `batches` one after the other, from its left end; a refused one is cut in two."""

    def __init__(self, model: str, input: Union[str, Sequence[str]], **options: Any) -> None:
        self.texts = (input,) if isinstance(input, str) else tuple(input)
        if not self.texts:
            raise ValueError("input holds no text")
        self.batches: Deque[Batch] = deque(split(self.texts))
        self.done = 0
        self._model = model
        self._options = given(**options)
        self._vectors: List[Optional[List[float]]] = [None] * len(self.texts)
        self._prompt_tokens = 0
        self._ids: List[str] = []
        self._model_told = model

    def call(self, batch: Batch) -> Call[_Response]:
        body = {"model": self._model, "input": list(batch.texts), "encoding_format": "base64", **self._options}
        return Call("POST", PATH, lambda found: decode(_Response, found), body=body, keyed=True)

    def accept(self, batch: Batch, response: _Response) -> None:
        """Raises UnexpectedAnswer if it has not one vector for each text."""
        for item in response.data:
            if not 0 <= item.index < len(batch.texts):
                raise UnexpectedAnswer("the answer has a vector for a text that was not asked for")
            self._vectors[batch.start + item.index] = vector_of(item.embedding)
        if None in self._vectors[batch.start : batch.start + len(batch.texts)]:
            raise UnexpectedAnswer("the answer has not one vector for each text")
        self.done += len(batch.texts)
        self._prompt_tokens += response.usage.prompt_tokens
        self._ids.append(response.id)
        self._model_told = response.model
        self.batches.popleft()

    def refused(self, batch: Batch, error: TooManyTokens) -> None:
        """Two halves in its place. Raises the error for one text alone."""
        if len(batch.texts) == 1:
            raise error
        half = len(batch.texts) // 2
        self.batches.popleft()
        self.batches.appendleft(Batch(batch.start + half, batch.texts[half:]))
        self.batches.appendleft(Batch(batch.start, batch.texts[:half]))

    def response(self) -> EmbeddingResponse:
        data = [Embedding(index, vector) for index, vector in enumerate(self._vectors) if vector is not None]
        usage = Usage(prompt_tokens=self._prompt_tokens, total_tokens=self._prompt_tokens)
        return EmbeddingResponse(self._model_told, data, usage, self._ids)


def split(texts: Sequence[str]) -> List[Batch]:
    """As few batches as the guess allows, in order."""
    batches: List[Batch] = []
    start, tokens = 0, 0
    for index, text in enumerate(texts):
        size = guess_tokens(text)
        if index > start and (index - start == TEXTS_MAX or tokens + size > TOKENS_MAX):
            batches.append(Batch(start, texts[start:index]))
            start, tokens = index, 0
        tokens += size
    batches.append(Batch(start, texts[start:]))
    return batches


def guess_tokens(text: str) -> int:
    """With the two that stand around each text."""
    return len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN + 3


def vector_of(told: Any) -> List[float]:
    """From base64 of little-endian float32, or a list of numbers. Raises UnexpectedAnswer."""
    if isinstance(told, list) and all(isinstance(number, (int, float)) for number in told):
        return [float(number) for number in told]
    try:
        raw = base64.b64decode(told, validate=True)
    except (TypeError, ValueError):
        raw = b""
    if not raw or len(raw) % FLOAT_BYTES:
        raise UnexpectedAnswer("an embedding is neither base64 of float32 nor a list of numbers")
    return list(struct.unpack(f"<{len(raw) // FLOAT_BYTES}f", raw))
