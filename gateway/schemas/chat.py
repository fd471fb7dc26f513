"""The body of POST /v1/chat/completions: every documented field, and which of them this release does not serve."""

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue

from core.errors import INVALID_ARGUMENTS, PlatformError
from gateway.schemas.messages import Message
from gateway.schemas.parsing import Strict

MESSAGES_MAX = 10_000
CHOICES_MAX = 16
STOPS_MAX = 16
STOP_CHARS_MAX = 1_024
INTEGER_MAX = 2**31 - 1
SEED_MAX = 2**63 - 1
NOT_SERVED = "Not served by this release: only the neutral value is accepted."
IGNORED = "Accepted and not used."


def _all_finite(value: JsonValue) -> JsonValue:
    """NaN and Infinity are not JSON, though the parser knows them."""
    waiting: list[JsonValue] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, float) and not math.isfinite(item):
            raise ValueError("NaN and Infinity are not JSON")
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return value


Json = Annotated[JsonValue, AfterValidator(_all_finite)]
JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_all_finite)]
StopText = Annotated[str, Field(min_length=1, max_length=STOP_CHARS_MAX)]
Penalty = Annotated[float, Field(ge=-2, le=2)]


class ResponseFormat(Strict):
    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonObject | None = None


class ChatCompletionRequest(Strict):
    model: str = Field(min_length=1, max_length=256, description="A tier or one of its aliases.")
    messages: Annotated[tuple[Message, ...], Field(max_length=MESSAGES_MAX, fail_fast=True)]
    temperature: Annotated[float, Field(ge=0, le=1.5)] | None = Field(
        default=None, description="Omitted: the tier's default_model_temperature."
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=0, le=INTEGER_MAX)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=INTEGER_MAX)] | None = None
    stream: bool = False
    stop: StopText | Annotated[tuple[StopText, ...], Field(max_length=STOPS_MAX)] | None = None
    random_seed: Annotated[int, Field(ge=0, le=SEED_MAX)] | None = None
    n: Annotated[int, Field(ge=1, le=CHOICES_MAX)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    safe_prompt: bool = Field(default=False, description="Put a safety prompt in front of the conversation.")

    metadata: JsonObject | None = Field(default=None, description=IGNORED)
    prompt_cache_key: str | None = Field(default=None, max_length=1_024, description=IGNORED)
    service_tier: Literal["auto", "standard_only"] | None = Field(default=None, description=IGNORED)
    stream_options: JsonObject | None = Field(default=None, description="Accepted; usage is sent in any case.")
    parallel_tool_calls: bool | None = Field(default=None, description=IGNORED)

    tools: Annotated[tuple[JsonObject, ...], Field(max_length=128)] | None = Field(default=None, description=NOT_SERVED)
    tool_choice: Literal["auto", "none", "any", "required"] | JsonObject | None = Field(
        default=None, description="Without tools only auto and none mean anything."
    )
    response_format: ResponseFormat | None = Field(default=None, description=NOT_SERVED)
    prediction: JsonObject | None = Field(default=None, description=NOT_SERVED)
    prompt_mode: Literal["reasoning"] | None = Field(default=None, description=NOT_SERVED)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = Field(
        default=None, description=NOT_SERVED
    )
    guardrails: tuple[JsonObject, ...] | None = Field(default=None, description=NOT_SERVED)
    repetition_penalty: float | None = Field(default=None, description=NOT_SERVED)
    top_k: int | None = Field(default=None, description=NOT_SERVED)
    logprobs: bool | int | None = Field(default=None, description=NOT_SERVED)
    top_logprobs: int | None = Field(default=None, description=NOT_SERVED)
    prompt_logprobs: bool | int | None = Field(default=None, description=NOT_SERVED)
    top_prompt_logprobs: int | None = Field(default=None, description=NOT_SERVED)


NO_PREDICTION = {"type": "content", "content": ""}

# What each field may say without asking for anything.
NEUTRAL: dict[str, Callable[[Any], bool]] = {
    "tools": lambda value: not value,
    "tool_choice": lambda value: value in ("auto", "none"),
    "response_format": lambda value: value.type == "text" and value.json_schema is None,
    "prediction": lambda value: value == NO_PREDICTION,
    "prompt_mode": lambda _: False,
    "reasoning_effort": lambda value: value == "none",
    "guardrails": lambda value: not value,
    "repetition_penalty": lambda value: value == 1,
    "top_k": lambda value: value in (0, -1),
    "logprobs": lambda value: not value,
    "top_logprobs": lambda value: not value,
    "prompt_logprobs": lambda value: not value,
    "top_prompt_logprobs": lambda value: not value,
}


def refuse_unserved(request: ChatCompletionRequest) -> None:
    """Nothing that was asked for is silently left out. Raises PlatformError(INVALID_ARGUMENTS)."""
    for name in request.model_fields_set & NEUTRAL.keys():
        value = getattr(request, name)
        if value is not None and not NEUTRAL[name](value):
            raise PlatformError(INVALID_ARGUMENTS, f"{name} is not enabled for this model", param=name)
