"""What inference and accounts answer. All are frozen; `extra` keeps what a newer platform adds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

from tramontane.wire.decode import WIRE_NAME, Answer


@dataclass(frozen=True)
class PromptTokensDetails(Answer):
    cached_tokens: int = 0


@dataclass(frozen=True)
class Usage(Answer):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: Optional[PromptTokensDetails] = None


@dataclass(frozen=True)
class Extension(Answer):
    """`ended_by`: why an answer is shorter than asked: credit, revoked, slow_reader. `error`: why a stream failed."""

    ended_by: Optional[str] = None
    error: Optional[str] = None


@dataclass(frozen=True)
class FunctionCall(Answer):
    """`arguments` is a JSON object as text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class ToolCall(Answer):
    id: str
    function: FunctionCall
    type: str = "function"
    index: int = 0

    def to_message(self) -> Dict[str, Any]:
        function = {"name": self.function.name, "arguments": self.function.arguments}
        return {"id": self.id, "type": self.type, "function": function, "index": self.index}


@dataclass(frozen=True)
class LikelyToken(Answer):
    token: str
    logprob: float
    bytes: Optional[List[int]] = None
    token_id: Optional[int] = None


@dataclass(frozen=True)
class TokenLogprob(Answer):
    token: str
    logprob: float
    bytes: Optional[List[int]] = None
    token_id: Optional[int] = None
    top_logprobs: Optional[List[LikelyToken]] = None


@dataclass(frozen=True)
class Logprobs(Answer):
    content: List[TokenLogprob]


@dataclass(frozen=True)
class AssistantMessage(Answer):
    """May be appended to the messages of the next request as it is."""

    role: str = "assistant"
    content: Optional[str] = None
    tool_calls: Optional[List[ToolCall]] = None
    prefix: bool = False

    def to_message(self) -> Dict[str, Any]:
        message: Dict[str, Any] = {"role": self.role, "content": self.content or ""}
        if self.tool_calls:
            message["tool_calls"] = [call.to_message() for call in self.tool_calls]
        return message


@dataclass(frozen=True)
class Choice(Answer):
    """`finish_reason`: stop, length, tool_calls or error."""

    index: int
    message: AssistantMessage
    finish_reason: Optional[str] = None
    logprobs: Optional[Logprobs] = None


@dataclass(frozen=True)
class ChatCompletion(Answer):
    """`choices[0].message.content` is the text. `usage` is zero for a stream that has not come to its end."""

    id: str
    model: str
    choices: List[Choice]
    usage: Usage
    created: int = 0
    object: str = "chat.completion"
    x_tramontane: Optional[Extension] = None


@dataclass(frozen=True)
class Delta(Answer):
    role: Optional[str] = None
    content: Optional[str] = None
    tool_calls: Optional[List[ToolCall]] = None


@dataclass(frozen=True)
class ChunkChoice(Answer):
    index: int
    delta: Delta
    finish_reason: Optional[str] = None
    logprobs: Optional[Logprobs] = None


@dataclass(frozen=True)
class ChatChunk(Answer):
    """One event of a stream; `usage` is on the last that has a choice."""

    id: str
    model: str
    choices: List[ChunkChoice]
    usage: Optional[Usage] = None
    created: int = 0
    object: str = "chat.completion.chunk"
    x_tramontane: Optional[Extension] = None


@dataclass(frozen=True)
class Embedding(Answer):
    index: int
    embedding: List[float]
    object: str = "embedding"


@dataclass(frozen=True)
class EmbeddingResponse(Answer):
    """`data` has one vector for each text, in their order, also if it took several requests: `ids`."""

    model: str
    data: List[Embedding]
    usage: Usage
    ids: List[str]
    object: str = "list"


@dataclass(frozen=True)
class Model(Answer):
    id: str
    capabilities: Dict[str, bool]
    object: str = "model"
    created: int = 0
    owned_by: str = ""
    name: Optional[str] = None
    description: Optional[str] = None
    max_context_length: int = 0
    aliases: Optional[List[str]] = None
    deprecation: Optional[str] = None
    deprecation_replacement_model: Optional[str] = None
    default_model_temperature: Optional[float] = None
    type: str = "base"


@dataclass(frozen=True)
class ModelList(Answer):
    data: List[Model]
    object: str = "list"


@dataclass(frozen=True)
class UsageGroup(Answer):
    """`cost` is `cost_nano` as a decimal string of the platform's currency. Times are ISO 8601."""

    start: str
    end: str
    requests: int
    failed_requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    total_tokens: int
    cost_nano: int
    cost: str
    workspace: Optional[str] = None
    key: Optional[str] = None
    tier: Optional[str] = None


@dataclass(frozen=True)
class Quantiles(Answer):
    p50: Optional[int] = None
    p95: Optional[int] = None
    p99: Optional[int] = None


@dataclass(frozen=True)
class LatencyReport(Answer):
    first_token_ms: Quantiles
    total_ms: Quantiles


@dataclass(frozen=True)
class UsageReport(Answer):
    """`next` is the cursor of the following lines; None: these were the last."""

    start: str = field(metadata={WIRE_NAME: "from"})
    end: str = field(metadata={WIRE_NAME: "to"})
    time_zone: str
    data: List[UsageGroup]
    next: Optional[str] = None
    latency: Optional[LatencyReport] = None
    object: str = "list"


@dataclass(frozen=True)
class UsageRecord(Answer):
    """One settled request."""

    request_id: str
    admitted: str
    workspace: str
    key: str
    tier: str
    kind: str
    outcome: str
    streamed: bool
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost_nano: int
    cost: str
    price_version: str


@dataclass(frozen=True)
class LimitState(Answer):
    """One rule and how it stands. Spending is in nano-units. `tier` None: all together."""

    rule: str
    scope: str
    scope_id: str
    value: int
    hard: bool
    used: int
    remaining: int
    reset_s: int
    reset_at: int
    tier: Optional[str] = None
    window: Optional[str] = None


@dataclass(frozen=True)
class LimitList(Answer):
    data: List[LimitState]
    object: str = "list"


@dataclass(frozen=True)
class NamedObject(Answer):
    id: str
    name: str


@dataclass(frozen=True)
class Identity(Answer):
    """Whose key it is."""

    id: str
    workspace: NamedObject
    organization: NamedObject
    api_key: NamedObject
    email: Optional[str] = None
    first_name: Optional[str] = None
    last_name: Optional[str] = None
