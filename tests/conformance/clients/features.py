"""What every client is asked to do, and how it tells. Standard library only: it runs in each client's environment.

    python -m tests.conformance.clients.FAMILY '{"base_url": ...}'

prints one JSON line for each feature, and a last one with the tokens that the client was told of.
"""

import asyncio
import importlib.metadata
import inspect
import json
import sys
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

FEATURES = MappingProxyType(
    {
        "chat": "chat",
        "stream": "chat, streamed",
        "chat_async": "chat, async",
        "stream_async": "chat, streamed, async",
        "tools_round_trip": "tools: a forced call, its result, an answer",
        "tools_named": "tools: the one that is named",
        "tools_stream": "tools, streamed",
        "tools_native": "tools with a tokenizer that has tokens for them",
        "json_object": "JSON: any object",
        "json_schema": "JSON by a schema",
        "parse": "JSON into a class",
        "sampling": "stop, seed, top_p, max_tokens",
        "n": "several choices",
        "penalties": "presence and frequency penalty",
        "logprobs": "log probabilities",
        "prefix": "continue a prefix",
        "safe_prompt": "safe prompt",
        "openai_fields": "fields of OpenAI, lenient mode",
        "idempotency": "Idempotency-Key",
        "embeddings": "embeddings as numbers",
        "embeddings_base64": "embeddings as base64",
        "models_list": "list models",
        "models_retrieve": "one model, by alias",
        "fim": "fill in the middle",
        "fim_stream": "fill in the middle, streamed",
        "error_401": "401: wrong key",
        "error_400_model": "400, 1500: unknown model",
        "error_400_order": "400, 3230: order of messages",
        "error_400_arguments": "400, 3051: prompt too long",
        "error_422": "422: a field out of range",
        "error_402": "402: no credit",
        "error_429": "429: rate limit",
        "error_stream": "an error instead of a stream",
    }
)

ONCE = f"conformance-{uuid.uuid4()}"
TALK = [{"role": "user", "content": "Tell me about the wind."}]
TOO_LONG = [{"role": "user", "content": "word " * 3_000}]
WRONG_ORDER = [*TALK, {"role": "assistant", "content": "It blows."}]
PREFIX = "The wind"
SHORT = 8
BEYOND_CONTEXT = 10**6
DIMENSIONS = 384
SEED = 42
RATE_CALLS_MAX = 4
SKY = "sky"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string", "enum": ["Paris", "Oslo"]}},
                "required": ["place"],
                "additionalProperties": False,
            },
        },
    }
    for name, description in ((SKY, "The colour of the sky."), ("sea", "The colour of the sea."))
]
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["blue", "grey"]}, "dark": {"type": "boolean"}},
    "required": ["colour", "dark"],
    "additionalProperties": False,
}


class NotOfferedError(Exception):
    """The client has no way to ask for it."""


@dataclass(frozen=True, slots=True)
class World:
    """Where the platform is. `poor_key` has no credit, `slow_key` one request a minute."""

    base_url: str
    key: str
    poor_key: str
    slow_key: str
    chat_model: str = "mistral-tiny"
    alias: str = "open-mistral-7b"
    code_model: str = "codestral"
    embed_model: str = "mistral-embed"


class Client:
    """A method for each feature; one that is missing is not offered. What a method returns goes into the table."""

    package = ""
    silent_tiers: Sequence[str] = ()  # whose usage the client does not show

    def __init__(self, world: World) -> None:
        self.world = world
        self.told = {"prompt_tokens": 0, "completion_tokens": 0}

    def count(self, usage: Any) -> None:
        """Of an answer that was run anew."""
        self.told["prompt_tokens"] += usage.prompt_tokens
        self.told["completion_tokens"] += usage.completion_tokens or 0


def needs(function: Callable[..., Any], *names: str) -> None:
    missing = [name for name in names if name not in inspect.signature(function).parameters]
    if missing:
        raise NotOfferedError(f"no argument {missing[0]}")


def check_arguments(text: str) -> None:
    assert json.loads(text)["place"] in {"Paris", "Oslo"}, text


def check_colour(text: str) -> None:
    found = json.loads(text)
    assert set(found) == {"colour", "dark"}, text
    assert found["colour"] in {"blue", "grey"}, text


def check_json(text: str, finish_reason: str | None) -> None:
    """Random weights may never close an object: then it is one that max_tokens cut off."""
    if str(finish_reason) == "length":
        assert text.lstrip().startswith("{"), text
    else:
        assert isinstance(json.loads(text), dict), text


def surfaced(status: int, text: str, call: Callable[[], Any]) -> str:
    """How an error arrives: the exception's name. It must know the status, and say what the server said."""
    raised = None
    try:
        call()
    except Exception as error:  # noqa: BLE001 - each client has its own
        raised = error
    assert raised is not None, "nothing was raised"
    name = type(raised).__name__
    known = [getattr(raised, word) for word in ("status_code", "http_status") if hasattr(raised, word)]
    known += [raised.response.status_code] if hasattr(raised, "response") else []
    assert known[:1] == [status], f"{name} with status {known}: {raised}"
    assert text.lower() in f"{raised} {getattr(raised, 'body', '')}".lower(), f"{name} says: {raised}"
    return name


def until_limited(call: Callable[[], Any]) -> None:
    """What is left of the minute's one request is used up first."""
    for _ in range(RATE_CALLS_MAX):
        call()


def run(made: Callable[[World], Client], arguments: Sequence[str]) -> int:
    client = made(World(**json.loads(arguments[0])))
    for name in FEATURES:
        _say(name, getattr(client, name, None))
    version = importlib.metadata.version(client.package)
    line = {"version": version, "told": client.told, "silent_tiers": list(client.silent_tiers)}
    sys.stdout.write(json.dumps(line) + "\n")
    return 0


def _say(name: str, method: Callable[[], Any] | None) -> None:
    note = ""
    result = "not offered" if method is None else "ok"
    if method is not None:
        try:
            found = method()
            note = (asyncio.run(_awaited(found)) if inspect.isawaitable(found) else found) or ""
        except NotOfferedError as error:
            result, note = "not offered", str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the table says so
            result, note = "failed", f"{type(error).__name__}: {error}"[:300]
    sys.stdout.write(json.dumps({"feature": name, "result": result, "note": note}) + "\n")
    sys.stdout.flush()


async def _awaited(found: Awaitable[Any]) -> Any:
    return await found
