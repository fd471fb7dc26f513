"""From a conversation to exact token ids, by mistral-common: its validator in serving mode, its chat templates."""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mistral_common.exceptions import (
    InvalidAssistantMessageException,
    InvalidFunctionCallException,
    InvalidMessageStructureException,
    InvalidToolException,
    InvalidToolSchemaException,
    MistralCommonException,
)
from mistral_common.protocol.fim.request import FIMRequest
from mistral_common.protocol.instruct.chunk import ContentChunk, TextChunk
from mistral_common.protocol.instruct.messages import (
    AssistantMessage,
    ChatMessage,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from mistral_common.protocol.instruct.request import ChatCompletionRequest, InstructRequest
from mistral_common.protocol.instruct.tool_calls import FunctionCall, Tool, ToolCall
from mistral_common.protocol.instruct.validator import ValidationMode, get_validator
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy, Tokenized, TokenizerVersion
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from pydantic import ValidationError

from core.errors import ASSISTANT_MESSAGE, FUNCTION_CALL, INVALID_ARGUMENTS, MESSAGE_ORDER, VALIDATION, PlatformError
from core.tokenizer_files import tokenizer_file
from core.tools import MARKER, ToolForm, as_text_turns, neutral

# The serving validator wants a name; it is not part of the template.
_MODEL = "tier"
_KINDS = (
    (InvalidMessageStructureException, MESSAGE_ORDER),
    (InvalidAssistantMessageException, ASSISTANT_MESSAGE),
    (InvalidFunctionCallException, FUNCTION_CALL),
)
# How a sentencepiece vocabulary writes a single byte, and a space.
_BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")
_SPACE_PIECE = "\u2581"
_OF_TOOLS = (InvalidToolException, InvalidToolSchemaException)
# Where mistral-common's sentence differs from the one that the API is known to give.
_LIVE_WORDS = (("(or Assistant with prefix)", "(or Assistant with prefix True)"),)
_NEITHER = ("content or tool_calls, but not both.", "content or tool_calls, but not none.")
# The templates whose normaliser hands an ordinary conversation on as it is: with the system's text apart from the
# turns, or as the first of them. Another file's version goes through its own normaliser.
_SYSTEM_APART = frozenset({TokenizerVersion.v1, TokenizerVersion.v2, TokenizerVersion.v3})
_SYSTEM_FIRST = frozenset({TokenizerVersion.v7})
# Calls are a JSON list behind a control token; later versions write them in another way.
_TOOL_TOKENS = frozenset({TokenizerVersion.v2, TokenizerVersion.v3, TokenizerVersion.v7})


class ChatTokenizer:
    """One tokenizer with its chat template. Safe to share; holds no state between calls."""

    def __init__(self, tokenizer: MistralTokenizer[Any, Any, Any, Any, Tokenized]) -> None:
        # Each encoded prompt would be decoded again, for a text that nobody reads: a third of the time and more.
        tokenizer.instruct_tokenizer.decode = _no_text  # type: ignore[method-assign]
        self._tokenizer = tokenizer
        self._base = tokenizer.instruct_tokenizer.tokenizer
        self._validator = get_validator(tokenizer.version, ValidationMode.serving)
        self._system_apart = tokenizer.version in _SYSTEM_APART
        self._shortens = self._system_apart or tokenizer.version in _SYSTEM_FIRST
        # In v1 markers are ordinary text; later templates use control tokens, which text never becomes.
        self._text_markers = tokenizer.version == TokenizerVersion.v1
        self.has_fim = tokenizer.version != TokenizerVersion.v1
        self.tool_form = self._tool_form()
        self.bos_id = self._base.bos_id
        self.eos_id = self._base.eos_id
        # No token stands for more text than this: a bound on a prompt's tokens that needs no encoding.
        self.token_chars_max = max(len(piece) for piece in self._base.vocab())

    @classmethod
    def load(cls, name: str) -> "ChatTokenizer":
        """`name` is one of core.tokenizer_files, or a file's path. Raises SetupError if there is none."""
        return cls(MistralTokenizer.from_file(tokenizer_file(name), mode=ValidationMode.serving))

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[int, ...]:
        """The ids of the whole prompt, begin-of-sequence included. Messages have the API's shape, checked before.

        Raises PlatformError with mistral-common's own sentence for a conversation that it refuses.
        """
        if tools and self.tool_form is None:
            raise PlatformError(INVALID_ARGUMENTS, "Function calling is not enabled for this model", param="tools")
        turns: list[ChatMessage] = []
        try:
            turns = [self._message(message) for message in messages]
            if self._shortens and not tools and _is_ordinary(turns):
                return self._encode_ordinary(turns)
            return self._encode_whole(turns, tools or ())
        except MistralCommonException as error:
            raise _refused(error, turns) from error
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise PlatformError(INVALID_ARGUMENTS, str(first["msg"]), param="messages") from error
        except UnicodeEncodeError as error:
            raise PlatformError(VALIDATION, "A message holds half of a surrogate pair", param="messages") from error
        except (ValueError, RecursionError) as error:
            message = (
                "The JSON of a tool's arguments or result is nested too deeply, or holds a number that is too long"
            )
            raise PlatformError(INVALID_ARGUMENTS, message, param="messages") from error

    def encode_fim(self, prompt: str, suffix: str) -> tuple[int, ...]:
        """The ids of a fill-in-the-middle prompt; only where `has_fim`."""
        try:
            request = FIMRequest(prompt=prompt, suffix=suffix or None)
            prompt.encode(), suffix.encode()
            return tuple(self._tokenizer.encode_fim(request).tokens)
        except UnicodeEncodeError as error:
            raise PlatformError(VALIDATION, "The prompt holds half of a surrogate pair", param="prompt") from error

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, without control tokens."""
        return self._base.decode(list(ids))

    def piece(self, token_id: int) -> tuple[str, bytes]:
        """One token alone: its text, with a replacement mark for half a character, and its exact bytes."""
        if isinstance(self._base, Tekkenizer):
            raw = self._base.id_to_byte_piece(token_id, SpecialTokenPolicy.KEEP)
        else:
            word = self._base.id_to_piece(token_id)
            byte = _BYTE_PIECE.fullmatch(word)
            raw = bytes.fromhex(byte[1]) if byte else word.replace(_SPACE_PIECE, " ").encode()
        return raw.decode(errors="replace"), raw

    def _encode_ordinary(self, turns: list[ChatMessage]) -> tuple[int, ...]:
        # Two in five of a short prompt's microseconds would go to copying the turns twice, to find nothing to change.
        self._validator.validate_messages(turns)
        system = None
        if self._system_apart and isinstance(turns[0], SystemMessage):
            system, turns = turns[0].content, turns[1:]
        request: InstructRequest[ChatMessage, Tool] = InstructRequest(messages=turns, system_prompt=system)
        return tuple(self._tokenizer.instruct_tokenizer.encode_instruct(request).tokens)

    def _encode_whole(self, turns: list[ChatMessage], tools: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        request: ChatCompletionRequest[ChatMessage] = ChatCompletionRequest(
            model=_MODEL, messages=turns, tools=[Tool.model_validate(tool) for tool in tools] or None
        )
        if self._text_markers and (tools or any(_is_of_tools(turn) for turn in turns)):
            self._validator.validate_request(request)
            request = ChatCompletionRequest(model=_MODEL, messages=as_text_turns(turns, tools))
        return tuple(self._tokenizer.encode_chat_completion(request).tokens)

    def _tool_form(self) -> ToolForm | None:
        if self._text_markers:
            return ToolForm(MARKER)
        if self._tokenizer.version in _TOOL_TOKENS:
            return ToolForm(MARKER, self._base.get_special_token(MARKER))
        return None

    def _message(self, raw: Mapping[str, Any]) -> ChatMessage:
        content = self._content(raw.get("content"))
        match raw["role"]:
            case "user":
                return UserMessage(content="" if content is None else content)
            case "system":
                return SystemMessage(content="" if content is None else content)
            case "tool":
                tool_text = "" if content is None else content
                _refuse_half_escapes(tool_text)
                return ToolMessage(content=tool_text, tool_call_id=raw.get("tool_call_id"), name=raw.get("name"))
            case "assistant":
                calls = [_tool_call(call) for call in raw.get("tool_calls") or ()]
                return AssistantMessage(content=content, tool_calls=calls or None, prefix=bool(raw.get("prefix")))
            case role:
                raise PlatformError(VALIDATION, f"There is no role {role!r}", param="messages")

    def _content(self, content: str | Sequence[Mapping[str, Any]] | None) -> str | list[ContentChunk] | None:
        if content is None or isinstance(content, str):
            return self._plain(content) if content else content
        chunks: list[ContentChunk] = []
        for chunk in content:
            kind = chunk["type"]
            if kind != "text":
                words = "Image input" if kind == "image_url" else f"Input of type {kind}"
                raise PlatformError(INVALID_ARGUMENTS, f"{words} is not enabled for this model", param="messages")
            chunks.append(TextChunk(text=self._plain(chunk["text"])))
        return chunks

    def _plain(self, text: str) -> str:
        if not text.isascii():
            text.encode()  # sentencepiece names no reason when it fails on a lone surrogate
        return neutral(text) if self._text_markers else text


def _is_ordinary(turns: Sequence[ChatMessage]) -> bool:
    """Text only, from user to user in turn with the assistant, one system message before them or none."""
    if not all(isinstance(turn.content, str) and turn.content for turn in turns):
        return False
    said = turns[1:] if turns and isinstance(turns[0], SystemMessage) else turns
    return (
        len(said) % 2 == 1
        and all(isinstance(turn, UserMessage) for turn in said[::2])
        and all(isinstance(turn, AssistantMessage) and not (turn.tool_calls or turn.prefix) for turn in said[1::2])
    )


def _is_of_tools(turn: ChatMessage) -> bool:
    return isinstance(turn, ToolMessage) or (isinstance(turn, AssistantMessage) and bool(turn.tool_calls))


def _refused(error: MistralCommonException, turns: Sequence[ChatMessage]) -> PlatformError:
    kind = next((kind for cls, kind in _KINDS if isinstance(error, cls)), INVALID_ARGUMENTS)
    message = error.message
    for ours, theirs in _LIVE_WORDS:
        message = message.replace(ours, theirs)
    both, none = _NEITHER
    empty = any(isinstance(turn, AssistantMessage) and not (turn.content or turn.tool_calls) for turn in turns)
    if message.endswith(both) and empty:
        message = message.replace(both, none)
    return PlatformError(kind, message, param="tools" if isinstance(error, _OF_TOOLS) else "messages")


def _no_text(*_arguments: object, **_options: object) -> str:
    return ""


def _refuse_half_escapes(content: Any) -> None:
    """JSON in a text may hide what no text may hold: raises UnicodeEncodeError for half of a surrogate pair."""
    for text in [content] if isinstance(content, str) else [chunk.text for chunk in content if hasattr(chunk, "text")]:
        if "\\u" in text:
            with contextlib.suppress(json.JSONDecodeError):
                json.dumps(json.loads(text), ensure_ascii=False).encode()


def _tool_call(raw: Mapping[str, Any]) -> ToolCall:
    function = raw["function"]
    _refuse_half_escapes(function["arguments"])
    call = FunctionCall(name=function["name"], arguments=function["arguments"])
    return ToolCall(id=raw.get("id") or "null", function=call)
