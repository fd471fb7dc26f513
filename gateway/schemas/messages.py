"""The messages of a conversation as a caller writes them; one class per role, no field that a role does not have."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.schemas.fields import JsonObject
from gateway.schemas.parsing import Strict

TEXTS_MAX = 10_000


class TextChunk(Strict):
    type: Literal["text"]
    text: str


class OtherChunk(BaseModel):
    """Chunks that other models take. They are read, so that the refusal can name them (400, 3051)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: Literal["image_url", "document_url", "reference", "file", "thinking", "input_audio"]


Chunks = Annotated[
    tuple[Annotated[TextChunk | OtherChunk, Field(discriminator="type")], ...],
    Field(max_length=TEXTS_MAX, fail_fast=True),
]
Content = str | Chunks


class FunctionCall(Strict):
    name: str
    arguments: str | JsonObject


class ToolCall(Strict):
    id: str = "null"
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int = 0


class SystemMessage(Strict):
    role: Literal["system"]
    content: Content


class UserMessage(Strict):
    role: Literal["user"]
    content: Content | None


class AssistantMessage(Strict):
    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: Annotated[tuple[ToolCall, ...], Field(max_length=128)] | None = None
    prefix: bool = Field(default=False, description="The answer continues this text; only on the last message.")


class ToolMessage(Strict):
    role: Literal["tool"]
    content: Content | None
    tool_call_id: str | None = None
    name: str | None = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]
