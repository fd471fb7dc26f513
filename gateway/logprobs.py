"""Log probabilities of tokens as JSON values, in the shape that Mistral's and OpenAI's clients read."""

from collections.abc import Sequence
from typing import Any

from core.tokens import ChatTokenizer
from core.wire import TokenLogprob

LOWEST = -9_999.0  # JSON has no minus infinity; what cannot be drawn is called this, as OpenAI does

Rendered = dict[str, list[dict[str, Any]]]


def render_logprobs(tokenizer: ChatTokenizer, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]) -> Rendered:
    """`bytes` is exact where a character is spread over several tokens; `token` is then only its picture."""
    content = []
    for token_id, (logprob, likeliest) in zip(token_ids, logprobs, strict=True):
        entry = _token(tokenizer, token_id, logprob)
        entry["top_logprobs"] = [_token(tokenizer, other, its) for other, its in likeliest]
        content.append(entry)
    return {"content": content}


def _token(tokenizer: ChatTokenizer, token_id: int, logprob: float) -> dict[str, Any]:
    text, raw = tokenizer.piece(token_id)
    return {"token": text, "logprob": max(logprob, LOWEST), "bytes": list(raw), "token_id": token_id}
