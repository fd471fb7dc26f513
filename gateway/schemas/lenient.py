"""What OpenAI clients send, made into what Mistral's API takes. Run before the strict parse, in lenient mode only.

What means the same is renamed; what asks for nothing that could be served is left out and named, so that the answer can
say so. Everything known still has to be right: a wrong type stays a 422.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from pydantic import BaseModel

from core.errors import VALIDATION, PlatformError
from gateway.schemas import messages, tools
from gateway.schemas.chat import ChatCompletionRequest
from gateway.schemas.embeddings import EmbeddingRequest
from gateway.schemas.fields import SEED_MAX
from gateway.schemas.fim import FIMCompletionRequest
from gateway.schemas.mode import Mode
from gateway.schemas.parsing import Parsed, parse
from gateway.schemas.turns import mend_turns

NAMES_MAX = 32
NAME_CHARS_MAX = 64
SERVICE_TIERS = ("auto", "standard_only")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
_RENAMED = {
    ChatCompletionRequest: {"max_completion_tokens": "max_tokens", "seed": "random_seed"},
    FIMCompletionRequest: {"max_completion_tokens": "max_tokens", "seed": "random_seed"},
    EmbeddingRequest: {"dimensions": "output_dimension"},
}


class Ignored:
    """Names of what was left out, each once, and safe to stand in a header."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}

    def add(self, name: str) -> None:
        if len(self.names) < NAMES_MAX:
            self.names[_UNSAFE.sub("?", name)[:NAME_CHARS_MAX]] = None

    def keep(self, raw: Mapping[str, Any], model: type[BaseModel], place: str = "") -> dict[str, Any]:
        """The fields that the model has, without nulls: null means not given."""
        known = {field.alias or name for name, field in model.model_fields.items()}
        for name in raw.keys() - known:
            if raw[name] is not None:
                self.add(place + name)
        return {name: value for name, value in raw.items() if name in known and value is not None}


def lenient(model: type[BaseModel], body: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body that the strict schema takes, and the names of the fields that were left out."""
    ignored = Ignored()
    given = dict(body)
    for theirs, ours in _RENAMED.get(model, {}).items():
        value = given.pop(theirs, None)
        if value is not None and given.get(ours) is None:
            given[ours] = value
    kept = ignored.keep(given, model)
    seed = kept.get("random_seed")
    if isinstance(seed, int) and not isinstance(seed, bool):
        kept["random_seed"] = seed & SEED_MAX
    if model is not EmbeddingRequest:
        _mend_sampling(kept, ignored)
    if model is ChatCompletionRequest:
        _mend_chat(kept, ignored)
    return kept, tuple(ignored.names)


def lenient_json(model: type[BaseModel], body: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Raises PlatformError(VALIDATION) for what is not a JSON object."""
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _invalid("json_invalid", f"Invalid JSON: {error.msg}") from error
    if not isinstance(raw, dict):
        raise _invalid("model_attributes_type", "Input should be an object")
    kept, ignored = lenient(model, raw)
    try:
        return orjson.dumps(kept), ignored
    except orjson.JSONEncodeError as error:  # it reads deeper than it writes
        raise _invalid("recursion_limit", "The body is nested too deeply") from error


def read_body(model: type[Parsed], body: bytes, mode: Mode) -> tuple[Parsed, tuple[str, ...]]:
    """The request, and what lenient mode left out. Raises PlatformError(VALIDATION)."""
    if mode is Mode.STRICT:
        return parse(model, body), ()
    mended, ignored = lenient_json(model, body)
    return parse(model, mended), ignored


def _mend_sampling(body: dict[str, Any], ignored: Ignored) -> None:
    if body.get("temperature") == 0 and body.get("top_p", 1) != 1:  # greedy whatever it says
        del body["top_p"]
        ignored.add("top_p")


def _mend_chat(body: dict[str, Any], ignored: Ignored) -> None:
    wanted_tier = body.get("service_tier", "auto")
    if wanted_tier not in SERVICE_TIERS:
        del body["service_tier"]
        if wanted_tier != "default":
            ignored.add("service_tier")
    _each(body, "tools", lambda tool: _tool(tool, ignored))
    if isinstance(wanted := body.get("response_format"), dict):
        body["response_format"] = kept = ignored.keep(wanted, tools.ResponseFormat, "response_format.")
        _inside(kept, "json_schema", tools.JsonSchema, "response_format.json_schema.", ignored)
    if isinstance(choice := body.get("tool_choice"), dict):
        body["tool_choice"] = kept = ignored.keep(choice, tools.NamedTool, "tool_choice.")
        _inside(kept, "function", tools.FunctionName, "tool_choice.function.", ignored)
    if isinstance(body.get("messages"), list):
        body["messages"] = mend_turns([_message(raw, ignored) for raw in body["messages"]])


def _tool(raw: dict[str, Any], ignored: Ignored) -> dict[str, Any]:
    kept = ignored.keep(raw, tools.Tool, "tools.")
    _inside(kept, "function", tools.Function, "tools.function.", ignored)
    if isinstance(kept.get("function"), dict):
        kept["function"].setdefault("parameters", {"type": "object", "properties": {}})
    return kept


_MESSAGES: dict[str, type[BaseModel]] = {
    "system": messages.SystemMessage,
    "user": messages.UserMessage,
    "assistant": messages.AssistantMessage,
    "tool": messages.ToolMessage,
}


def _message(raw: Any, ignored: Ignored) -> Any:
    if not isinstance(raw, dict):
        return raw
    role = "system" if raw.get("role") == "developer" else raw.get("role")
    model = _MESSAGES.get(role) if isinstance(role, str) else None
    if model is None:
        return raw
    kept = ignored.keep({**raw, "role": role}, model, "messages.")
    if role in ("user", "tool"):
        kept.setdefault("content", raw.get("content"))
    _each(kept, "content", lambda chunk: _chunk(chunk, ignored))
    _each(kept, "tool_calls", lambda call: _call(call, ignored))
    return kept


def _chunk(raw: dict[str, Any], ignored: Ignored) -> dict[str, Any]:
    return ignored.keep(raw, messages.TextChunk, "messages.content.") if raw.get("type") == "text" else raw


def _call(raw: dict[str, Any], ignored: Ignored) -> dict[str, Any]:
    kept = ignored.keep(raw, messages.ToolCall, "messages.tool_calls.")
    _inside(kept, "function", messages.FunctionCall, "messages.tool_calls.function.", ignored)
    if isinstance(kept.get("function"), dict):
        kept["function"].setdefault("arguments", "{}")
    return kept


def _inside(body: dict[str, Any], name: str, model: type[BaseModel], place: str, ignored: Ignored) -> None:
    if isinstance(body.get(name), dict):
        body[name] = ignored.keep(body[name], model, place)


def _each(body: dict[str, Any], name: str, mend: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    if isinstance(body.get(name), list):
        body[name] = [mend(entry) if isinstance(entry, dict) else entry for entry in body[name]]


def _invalid(kind: str, message: str) -> PlatformError:
    detail = {"type": kind, "loc": ("body",), "msg": message}
    return PlatformError(VALIDATION, "The body is not valid.", details=(detail,))
