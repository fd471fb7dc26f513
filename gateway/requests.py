"""Parsed requests as admission takes them, from a route or from a batch file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from core.catalog import Tier

CHUNKS_BETWEEN = "\n\n"  # as mistral-common joins them


@dataclass(frozen=True, slots=True)
class Wish:
    """How an answer is wanted. `temperature` and `max_tokens` None mean the tier's; `logprobs` as in wire.Sampling."""

    stream: bool = False
    temperature: float | None = None
    top_p: float = 1.0
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: int | None = None
    top_k: int = 0
    repetition_penalty: float = 1.0


class Choice(StrEnum):
    """What an answer may be, where tools are offered."""

    AUTO = "auto"
    NONE = "none"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class ToolUse:
    """Tools in the API's shape. With `only` the answer calls that one."""

    tools: Sequence[Mapping[str, Any]] = ()
    choice: Choice = Choice.AUTO
    only: str | None = None
    parallel: bool = True

    @property
    def offered(self) -> Sequence[Mapping[str, Any]]:
        return () if self.choice is Choice.NONE else self.tools


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """An answer in JSON: any object, or what follows `schema`; with `strict` in every word of it."""

    schema: Mapping[str, Any] | None = None
    strict: bool = False

    @property
    def word(self) -> str:
        return "json_object" if self.schema is None else "json_schema"


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """`messages` in the API's shape. `json_answer` None: plain text. `safe_prompt` puts our safety text in front."""

    tier: Tier
    messages: Sequence[Mapping[str, Any]]
    wish: Wish = Wish()
    tool_use: ToolUse = field(default_factory=ToolUse)
    json_answer: JsonAnswer | None = None
    safe_prompt: bool = False

    @property
    def prefix(self) -> str:
        """The text that the answer continues, and begins with."""
        last = self.messages[-1] if self.messages else {}
        if not last.get("prefix"):
            return ""
        content = last.get("content") or ""
        if isinstance(content, str):
            return content
        return CHUNKS_BETWEEN.join([chunk.get("text", "") for chunk in content])

    @property
    def is_constrained(self) -> bool:
        """Whether a grammar is to be made: not a thing for the event loop."""
        return bool(self.tool_use.offered) or self.json_answer is not None


@dataclass(frozen=True, slots=True)
class FimRequest:
    tier: Tier
    prompt: str
    suffix: str = ""
    wish: Wish = Wish()
