"""Requests for text: chat and fill-in-the-middle."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, TypedDict, Union

from tramontane.types import AssistantMessage, ChatCompletion
from tramontane.wire.calls import EVENTS, JSON, Call, reader
from tramontane.wire.tools import ToolLike, tool_of

CHAT, FIM = "/v1/chat/completions", "/v1/fim/completions"
Message = Union[Mapping[str, Any], AssistantMessage]


class TextOptions(TypedDict, total=False):
    """What chat and fill-in-the-middle have in common. An option that is None is not sent."""

    temperature: Optional[float]
    top_p: Optional[float]
    max_tokens: Optional[int]
    min_tokens: Optional[int]
    stop: Union[str, Sequence[str], None]
    random_seed: Optional[int]
    metadata: Optional[Mapping[str, Any]]
    extra_body: Optional[Mapping[str, Any]]
    idempotency_key: Optional[str]


class FimOptions(TextOptions, total=False):
    suffix: Optional[str]


class PlainChatOptions(TextOptions, total=False):
    """All of chat but tools and the form of the answer. `extra_body` holds fields that this release does not know."""

    n: Optional[int]
    presence_penalty: Optional[float]
    frequency_penalty: Optional[float]
    repetition_penalty: Optional[float]
    top_k: Optional[int]
    logprobs: Optional[bool]
    top_logprobs: Optional[int]
    safe_prompt: Optional[bool]
    parallel_tool_calls: Optional[bool]


class ToolChatOptions(PlainChatOptions, total=False):
    tool_choice: Union[str, Mapping[str, Any], None]


class ChatOptions(ToolChatOptions, total=False):
    tools: Optional[Sequence[ToolLike]]
    response_format: Optional[Mapping[str, Any]]


KNOWN_CHAT = frozenset(ChatOptions.__annotations__)
KNOWN_FIM = frozenset(FimOptions.__annotations__)
NOT_IN_BODY = frozenset({"extra_body", "idempotency_key"})


def chat_call(
    model: str, messages: Sequence[Message], options: Mapping[str, Any], *, stream: bool = False
) -> Call[ChatCompletion]:
    """Raises TypeError for an option that does not exist."""
    body: Dict[str, Any] = {"model": model, "messages": messages_of(messages)}
    body.update(_fields(options, KNOWN_CHAT))
    if body.get("tools"):
        body["tools"] = [_tool(tool) for tool in body["tools"]]
    return _call(CHAT, body, options, stream=stream)


def fim_call(model: str, prompt: str, options: Mapping[str, Any], *, stream: bool = False) -> Call[ChatCompletion]:
    """Raises TypeError for an option that does not exist."""
    body: Dict[str, Any] = {"model": model, "prompt": prompt}
    body.update(_fields(options, KNOWN_FIM))
    return _call(FIM, body, options, stream=stream)


def messages_of(messages: Sequence[Message]) -> List[Dict[str, Any]]:
    """Answers of the platform become messages as they may be sent back; mappings stay as they are."""
    if isinstance(messages, (str, bytes, Mapping)):
        raise TypeError("messages is a list of messages")
    return [message.to_message() if isinstance(message, AssistantMessage) else dict(message) for message in messages]


def _fields(options: Mapping[str, Any], known: frozenset[str]) -> Dict[str, Any]:
    unknown = sorted(set(options) - known)
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}; what this release does not know goes into extra_body")
    fields = {name: value for name, value in options.items() if value is not None and name not in NOT_IN_BODY}
    return {**fields, **(options.get("extra_body") or {})}


def _call(path: str, body: Dict[str, Any], options: Mapping[str, Any], *, stream: bool) -> Call[ChatCompletion]:
    """A stream carries a key only if the caller gives one: with it, an answer that ended comes again as one chunk."""
    return Call(
        "POST",
        path,
        reader(ChatCompletion),
        body={**body, "stream": True} if stream else body,
        accept=EVENTS if stream else JSON,
        keyed=not stream,
        idempotency_key=options.get("idempotency_key"),
    )


def _tool(tool: Any) -> Dict[str, Any]:
    return dict(tool) if isinstance(tool, Mapping) else tool_of(tool).to_wire()
