"""The body of POST /v1/chat/completions: every documented field, and which of them do nothing or are refused."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field

from core.catalog import Tier
from core.errors import INVALID_ARGUMENTS, VALIDATION, PlatformError
from gateway.requests import ChatRequest, Choice, JsonAnswer, ToolUse, Wish
from gateway.schemas.fields import (
    IGNORED,
    INTEGER_MAX,
    CacheKey,
    JsonObject,
    ModelName,
    Seed,
    Stops,
    Temperature,
    TokenCount,
    TopP,
    stop_texts,
)
from gateway.schemas.messages import Chunks, Message
from gateway.schemas.parsing import Strict
from gateway.schemas.tools import NamedTool, ResponseFormat, ToolChoice, Tools

MESSAGES_MAX = 10_000
CHOICES_MAX = 8
LOGPROBS_MAX = 20
REPETITION_PENALTY_MAX = 10
NOT_SERVED = "Not served: only null and what asks for nothing is accepted."

Penalty = Annotated[float, Field(ge=-2, le=2)]


class Prediction(Strict):
    type: Literal["content"] = "content"
    content: str | Chunks = ""


class ChatCompletionRequest(Strict):
    model: ModelName
    messages: Annotated[tuple[Message, ...], Field(max_length=MESSAGES_MAX, fail_fast=True)]
    temperature: Temperature | None = Field(default=None, description="Omitted: the tier's default_model_temperature.")
    top_p: TopP | None = Field(default=None, description="With temperature 0 only 1.")
    max_tokens: TokenCount | None = Field(default=None, description="Omitted: what the context leaves.")
    min_tokens: TokenCount | None = None
    stream: bool = False
    stop: Stops | None = None
    random_seed: Seed | None = None
    n: Annotated[int, Field(ge=1, le=CHOICES_MAX)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=REPETITION_PENALTY_MAX)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=INTEGER_MAX)] | None = Field(default=None, description="0 and -1: all.")
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=LOGPROBS_MAX)] | None = Field(
        default=None, description="Needs logprobs."
    )
    safe_prompt: bool = Field(default=False, description="Put a safety text, not billed, in front of the conversation.")
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = Field(default=None, description="False: at most one call.")
    response_format: ResponseFormat | None = None

    metadata: JsonObject | None = Field(default=None, description=IGNORED)
    prompt_cache_key: CacheKey | None = Field(default=None, description=IGNORED)
    service_tier: Literal["auto", "standard_only"] | None = Field(default=None, description=IGNORED)
    stream_options: JsonObject | None = Field(default=None, description="Not used: usage is sent in any case.")
    prediction: Prediction | None = Field(default=None, description=IGNORED)

    prompt_mode: Literal["reasoning"] | None = Field(default=None, description=NOT_SERVED)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = Field(
        default=None, description=NOT_SERVED
    )
    guardrails: Annotated[tuple[JsonObject, ...], Field(max_length=128)] | None = Field(
        default=None, description=NOT_SERVED
    )
    prompt_logprobs: bool | None = Field(default=None, description=NOT_SERVED)
    top_prompt_logprobs: Annotated[int, Field(ge=0, le=LOGPROBS_MAX)] | None = Field(
        default=None, description=NOT_SERVED
    )


# What a field may say without asking for anything.
Neutral = MappingProxyType[str, Callable[[Any], bool]]
REFUSED: Neutral = MappingProxyType(
    {
        "prompt_mode": lambda value: value is None,
        "reasoning_effort": lambda value: value in (None, "none"),
        "guardrails": lambda value: not value,
        "prompt_logprobs": lambda value: not value,
        "top_prompt_logprobs": lambda value: not value,
    }
)
UNUSED: Neutral = MappingProxyType(
    {
        "metadata": lambda value: not value,
        "prompt_cache_key": lambda value: not value,
        "service_tier": lambda value: value in (None, "standard_only"),
        "stream_options": lambda value: not value,
        "prediction": lambda value: value is None or not value.content,
    }
)


def refuse_unserved(asked: ChatCompletionRequest) -> None:
    """Nothing that changes an answer is silently left out. Raises PlatformError(INVALID_ARGUMENTS)."""
    for name in asking(asked, REFUSED):
        raise PlatformError(INVALID_ARGUMENTS, f"{name} is not enabled for this model", param=name)


def asking(asked: Strict, neutral: Neutral) -> tuple[str, ...]:
    """Those of the fields that ask for something."""
    names = asked.model_fields_set & neutral.keys()
    if not names:
        return ()
    return tuple(sorted(name for name in names if not neutral[name](getattr(asked, name))))


def to_chat_request(asked: ChatCompletionRequest, tier: Tier) -> ChatRequest:
    """Raises PlatformError(VALIDATION) for fields that contradict each other."""
    return ChatRequest(
        tier=tier,
        messages=[message.model_dump() for message in asked.messages],
        wish=Wish(
            stream=asked.stream,
            temperature=asked.temperature,
            top_p=1.0 if asked.top_p is None else asked.top_p,
            max_tokens=asked.max_tokens,
            min_tokens=asked.min_tokens or 0,
            stop=stop_texts(asked.stop),
            seed=asked.random_seed,
            n=asked.n or 1,
            presence_penalty=asked.presence_penalty or 0.0,
            frequency_penalty=asked.frequency_penalty or 0.0,
            logprobs=_logprobs(asked),
            top_k=max(0, asked.top_k or 0),
            repetition_penalty=asked.repetition_penalty or 1.0,
        ),
        tool_use=_tool_use(asked),
        json_answer=_json_answer(asked.response_format),
        safe_prompt=asked.safe_prompt,
    )


def _logprobs(asked: ChatCompletionRequest) -> int | None:
    if asked.logprobs:
        return asked.top_logprobs or 0
    if asked.top_logprobs:
        detail = {"type": "value_error", "loc": ("body", "top_logprobs"), "msg": "Needs logprobs to be true"}
        raise PlatformError(VALIDATION, "top_logprobs needs logprobs", param="top_logprobs", details=(detail,))
    return None


_NO_TOOLS = ToolUse()


def _tool_use(asked: ChatCompletionRequest) -> ToolUse:
    choice = asked.tool_choice
    if not asked.tools and choice in (None, "auto", "none"):
        return _NO_TOOLS
    tools = [tool.model_dump() for tool in asked.tools or ()]
    parallel = asked.parallel_tool_calls is not False
    if isinstance(choice, NamedTool):
        return ToolUse(tools, Choice.ANY, choice.function.name, parallel)
    return ToolUse(tools, Choice("any" if choice == "required" else choice or "auto"), None, parallel)


def _json_answer(wanted: ResponseFormat | None) -> JsonAnswer | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object" or wanted.json_schema is None:
        return JsonAnswer()
    return JsonAnswer(wanted.json_schema.schema_, wanted.json_schema.strict)
