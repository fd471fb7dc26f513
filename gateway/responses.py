"""JSON bodies of answers that are not streamed: keys that either generation of clients insists on are always there."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from core.ids import made_ms
from core.tokens import ChatTokenizer
from core.tools import split_tool_calls
from core.wire import Usage
from gateway.errors import EXTENSION
from gateway.logprobs import render_logprobs
from gateway.replies import Folded
from gateway.tool_calls import call_entries


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
    model: str,
    folded: Folded,
    has_tools: bool = False,
    tokenizer: ChatTokenizer | None = None,
    prefix: str = "",
) -> bytes:
    """`has_tools`: an answer may be calls. `tokenizer`: log probabilities were asked for. `prefix` stands in front."""
    choices = []
    for index, (answer, reason) in enumerate(zip(folded.answers, folded.finish_reasons, strict=True)):
        calls = split_tool_calls(answer.text) if has_tools and reason != "error" else None
        choice: dict[str, Any] = {
            "index": index,
            "message": {
                "role": "assistant",
                "content": prefix + (answer.text if calls is None else calls.content),
                "tool_calls": None if calls is None else call_entries(request_id, index, calls),
                "prefix": False,
            },
            "finish_reason": reason if calls is None else "tool_calls",
        }
        if tokenizer is not None:
            choice["logprobs"] = render_logprobs(tokenizer, answer.token_ids, answer.logprobs)
        choices.append(choice)
    body = {
        "id": request_id,
        "object": "chat.completion",
        "created": made_ms(request_id) // 1_000,
        "model": model,
        "choices": choices,
        "usage": usage_body(folded.usage),
    }
    if folded.ended_by is not None:
        body[EXTENSION] = {"ended_by": folded.ended_by}
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
