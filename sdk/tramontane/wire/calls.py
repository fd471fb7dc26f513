"""One request to the platform, as a value: what goes out, how the answer is read, and whether it may be repeated."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, Generic, Mapping, Optional, Tuple, Type, TypeVar
from urllib.parse import quote

from tramontane.errors import UnexpectedAnswer
from tramontane.wire.config import Config
from tramontane.wire.decode import Answer, Made, Meta, decode, with_meta
from tramontane.wire.failures import request_id_of

Result = TypeVar("Result")
Query = Tuple[Tuple[str, str], ...]

VERSION = "0.1.0"
JSON, EVENTS, JSON_LINES = "application/json", "text/event-stream", "application/jsonl"
SUCCESS = range(200, 300)


@dataclass(frozen=True)
class Call(Generic[Result]):
    """`keyed`: carries one Idempotency-Key over all its tries. `repeatable`: may be sent again although an earlier try
    may have been served. `read` gets the parsed body.
    """

    method: str
    path: str
    read: Callable[[Any], Result] = field(repr=False)
    query: Query = ()
    body: Optional[Mapping[str, Any]] = field(default=None, repr=False)
    accept: str = JSON
    keyed: bool = False
    repeatable: bool = True
    idempotency_key: Optional[str] = None


@dataclass(frozen=True)
class Prepared:
    """Ready for the wire, but for the key."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: Optional[bytes] = field(repr=False)


def prepare(call: Call[Any], config: Config) -> Prepared:
    headers = {"accept": call.accept, "user-agent": f"tramontane-python/{VERSION}"}
    content = None
    if call.body is not None:
        content = json.dumps(call.body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")
        headers["content-type"] = JSON
    if call.idempotency_key is not None:
        headers["idempotency-key"] = call.idempotency_key
    return Prepared(call.method, config.base_url + call.path, headers, content)


def with_key(call: Call[Result], key: str) -> Call[Result]:
    """With this Idempotency-Key, if it takes one and has none yet."""
    return replace(call, idempotency_key=key) if call.keyed and call.idempotency_key is None else call


def read_answer(call: Call[Result], status: int, headers: Mapping[str, str], raw: bytes) -> Result:
    """Raises UnexpectedAnswer."""
    request_id = request_id_of(headers)
    body = None
    if raw:
        try:
            body = json.loads(raw)
        except ValueError:
            body = raw
    if isinstance(body, bytes):
        kind = headers.get("content-type", "no type")
        raise UnexpectedAnswer(f"{call.method} {call.path} answered {status} with {kind} instead of JSON")
    found = call.read(body)
    return with_meta(found, Meta(status, headers, request_id)) if isinstance(found, Answer) else found


def read_line(call: Call[Result], line: bytes) -> Result:
    """Of an answer in JSON Lines. Raises UnexpectedAnswer."""
    try:
        return call.read(json.loads(line))
    except ValueError:
        raise UnexpectedAnswer(f"{call.method} {call.path} answered a line that is no JSON") from None


def reader(wanted: Type[Made]) -> Callable[[Any], Made]:
    return lambda body: decode(wanted, body)


def nothing(_body: Any) -> None:
    """Of answers without a body."""


def segment(name: str) -> str:
    """An id or name as a part of a path. Raises ValueError for one that would be another path."""
    if not name.strip("."):
        raise ValueError(f"{name!r} is no id")
    return quote(name, safe="")


def query(**values: Any) -> Query:
    """What is None is left out."""
    return tuple((name, _shown(value)) for name, value in values.items() if value is not None)


def given(**values: Any) -> Dict[str, Any]:
    """What is None is left out; UNSET too."""
    return {name: value for name, value in values.items() if value is not None and value is not UNSET}


def said(**values: Any) -> Dict[str, Any]:
    """What is UNSET is left out; None is sent as null."""
    return {name: value for name, value in values.items() if value is not UNSET}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


class Unset:
    """Stands for an argument that was not given, where None means something."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()
