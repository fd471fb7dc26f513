"""JSON bodies of answers that are not streamed: keys that either generation of clients insists on are always there."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from core.wire import Usage
from gateway.errors import EXTENSION


def usage_body(usage: Usage) -> dict[str, Any]:
    """`completion_tokens` is there for embeddings too. Cached tokens are named when there are any."""
    body: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    if usage.cached_tokens:
        body["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    return body


def chat_body(
    *,
    request_id: str,
    created_s: int,
    model: str,
    texts: Sequence[str],
    finish_reasons: Sequence[str],
    usage: Usage,
    ended_by: str | None,
) -> bytes:
    body = {
        "id": request_id,
        "object": "chat.completion",
        "created": created_s,
        "model": model,
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "tool_calls": None, "prefix": False},
                "finish_reason": reason,
            }
            for index, (text, reason) in enumerate(zip(texts, finish_reasons, strict=True))
        ],
        "usage": usage_body(usage),
    }
    if ended_by is not None:
        body[EXTENSION] = {"ended_by": ended_by}
    return orjson.dumps(body)


def embeddings_body(
    *, request_id: str, model: str, vectors: Sequence[bytes], encoding_format: str, usage: Usage
) -> bytes:
    """`vectors` are little-endian float32; base64 carries exactly these bytes."""
    as_base64 = encoding_format == "base64"
    return orjson.dumps(
        {
            "id": request_id,
            "object": "list",
            "model": model,
            "data": [
                {
                    "object": "embedding",
                    "embedding": base64.b64encode(vector).decode("ascii")
                    if as_base64
                    else np.frombuffer(vector, dtype="<f4"),
                    "index": index,
                }
                for index, vector in enumerate(vectors)
            ],
            "usage": usage_body(usage),
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
