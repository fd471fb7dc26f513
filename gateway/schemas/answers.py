"""The shapes of answers, for the OpenAPI document. The bodies themselves are made in `gateway/responses.py`."""

from typing import Any, Literal

from pydantic import BaseModel, Field


class PromptTokensDetails(BaseModel):
    cached_tokens: int


class UsageInfo(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = Field(default=None, description="Only if some were cached.")


class Extension(BaseModel):
    """What this platform adds to Mistral's shapes."""

    ended_by: str | None = Field(default=None, description="Why an answer ended early: credit, revoked, ...")
    error: str | None = Field(default=None, description="Of a stream that failed after it had begun: what happened.")


class FunctionCall(BaseModel):
    name: str
    arguments: str = Field(description="A JSON object as text.")


class ToolCall(BaseModel):
    id: str = Field(pattern="^[a-zA-Z0-9]{9}$")
    type: Literal["function"]
    function: FunctionCall
    index: int


class LikelyToken(BaseModel):
    token: str
    logprob: float
    bytes: list[int]
    token_id: int


class TokenLogprob(LikelyToken):
    top_logprobs: list[LikelyToken]


class Logprobs(BaseModel):
    """Only if they were asked for."""

    content: list[TokenLogprob]


class AnswerMessage(BaseModel):
    role: Literal["assistant"]
    content: str
    tool_calls: list[ToolCall] | None
    prefix: bool


class Choice(BaseModel):
    index: int
    message: AnswerMessage
    finish_reason: Literal["stop", "length", "tool_calls", "error"]
    logprobs: Logprobs | None = None


class ChatCompletionResponse(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: UsageInfo
    x_tramontane: Extension | None = None


class Delta(BaseModel):
    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCall] | None = Field(default=None, description="All of them, whole, in one chunk.")


class ChunkChoice(BaseModel):
    index: int
    delta: Delta
    finish_reason: Literal["stop", "length", "tool_calls", "error"] | None
    logprobs: Logprobs | None = None


class ChatCompletionChunk(BaseModel):
    """One `data:` line of a stream; the last chunk with a choice carries `usage`, `data: [DONE]` follows."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: UsageInfo | None = None
    x_tramontane: Extension | None = None


class EmbeddingItem(BaseModel):
    object: Literal["embedding"]
    embedding: list[float] | str
    index: int


class EmbeddingResponse(BaseModel):
    id: str
    object: Literal["list"]
    model: str
    data: list[EmbeddingItem]
    usage: UsageInfo


class Capabilities(BaseModel):
    completion_chat: bool
    function_calling: bool
    reasoning: bool
    completion_fim: bool
    fine_tuning: bool
    vision: bool
    ocr: bool
    classification: bool
    moderation: bool
    audio: bool
    audio_transcription: bool
    audio_transcription_realtime: bool
    audio_speech: bool
    unified_resources: bool


class ModelCard(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    capabilities: Capabilities
    name: str
    description: str
    max_context_length: int
    aliases: list[str]
    deprecation: None
    deprecation_replacement_model: None
    default_model_temperature: float | None
    type: Literal["base"]


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelCard]


class RefusedBy(BaseModel):
    rule: str
    scope: str
    limit: int
    remaining: int
    retry_after_ms: int | None
    tier: str | None = Field(default=None, description="If the rule concerns this tier only.")


class ErrorExtension(BaseModel):
    refused_by: RefusedBy


class ErrorBody(BaseModel):
    """Every error but 401, 422 and an unknown path."""

    object: Literal["error"]
    message: str
    type: str
    param: str | None
    code: str | None
    raw_status_code: int
    x_tramontane: ErrorExtension | None = None


class ValidationEntry(BaseModel):
    type: str
    loc: list[str | int]
    msg: str


class ValidationDetail(BaseModel):
    detail: list[ValidationEntry]


class ValidationErrorBody(BaseModel):
    object: Literal["error"]
    message: ValidationDetail
    type: Literal["invalid_request_error"]
    param: None
    code: None
    detail: list[ValidationEntry]


class UnauthorizedBody(BaseModel):
    """401, and 404 for an unknown path."""

    message: str
    request_id: str


class Readiness(BaseModel):
    ready: bool
    missing: list[str]


class Alive(BaseModel):
    status: Literal["ok"]


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The request cannot be served as it is."},
    401: {"model": UnauthorizedBody, "description": "No key, or not a valid one."},
    402: {"model": ErrorBody, "description": "The credit does not cover it."},
    403: {"model": ErrorBody, "description": "The key may not do this."},
    408: {"model": ErrorBody, "description": "The body took too long."},
    409: {"model": ErrorBody, "description": "The Idempotency-Key's first request still runs, or its answer is gone."},
    413: {"model": ErrorBody, "description": "The body is too large."},
    415: {"model": ErrorBody, "description": "The body is not JSON."},
    422: {"model": ValidationErrorBody, "description": "A field is wrong."},
    429: {"model": ErrorBody, "description": "A limit is reached; Retry-After says when to come back."},
    500: {"model": ErrorBody, "description": "A defect of ours; nothing is charged."},
    503: {"model": ErrorBody, "description": "A part of the platform is away; Retry-After."},
}
