"""What travels between submitters and workers: frozen records as msgpack maps.

Every map carries the version `v`. Fields that a reader does not know are ignored, fields that it misses take their
default, so that a release reads what the one before wrote.
"""

from dataclasses import dataclass, fields
from typing import Any, TypeVar

import msgpack

VERSION = 1

CHAT = "chat"
FIM = "fim"
EMBED = "embed"

INTERACTIVE = "interactive"
BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one request draws its tokens. `seed` None means: drawn from the request id. `logprobs` is how many of the
    likeliest tokens to report beside each chosen one (0: only that one); None: none at all. `top_k` 0: all.
    """

    max_tokens: int
    temperature: float = 0.7
    top_p: float = 1.0
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: int | None = None
    top_k: int = 0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, slots=True)
class Job:
    """One request on its way to a worker: token ids to continue, or texts to embed.

    `prompt_tokens` counts what is billed as prompt; `emitted_ids` holds, per choice, what an earlier attempt
    already delivered; `cost_expected` is in units of the fair queue (uncached prompt plus expected output tokens).
    `grammar` is one in llguidance's Lark form, for every choice. `output_covered`: so many output tokens, over all
    choices, are reserved at admission; more must be extended before it is delivered. `keep_answer`: the end carries the
    whole answer, and the submitter's absence does not stop it. `tool_marker`: the tokenizer's own tool call token is
    written out in the text. `continues`: the answer goes on within a text, so that its first space belongs to it.
    """

    request_id: str
    submitter: str
    organisation: str
    workspace: str
    tier: str
    kind: str
    deadline_ms: int
    prompt_tokens: int
    cost_expected: int
    band: str = INTERACTIVE
    attempt: int = 1
    streamed: bool = False
    prompt_ids: tuple[int, ...] = ()
    emitted_ids: tuple[tuple[int, ...], ...] = ()
    texts: tuple[str, ...] = ()
    sampling: Sampling | None = None
    grammar: str | None = None
    trace: str = ""
    output_covered: int = 0
    keep_answer: bool = False
    tool_marker: bool = False
    continues: bool = False


# Of one token: its log probability, and (token id, log probability) of the likeliest at its place, likeliest first.
TokenLogprob = tuple[float, tuple[tuple[int, float], ...]]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request. `cached_tokens` is the part of the prompt that was not computed again."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """Some tokens of one choice. `first_index` counts the choice's tokens before them; `text` may lag behind them
    (an unfinished character, a possible stop string), it never runs ahead. `logprobs`, if asked for: one for each
    token.
    """

    request_id: str
    attempt: int
    choice: int
    first_index: int
    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The whole of one choice, kept for an Idempotency-Key. Token ids and log probabilities only if they were asked
    for.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """The one terminal event: sent after the request is settled, and kept with its record.

    `finish_reasons` has one word per choice: stop, length, tool_calls or error. `vectors` are little-endian float32.
    `error` is None or a sentence for the caller; then nothing was charged. `ended_by` names the rule that ended
    it early. `answers`, one for each choice, only where the job said keep_answer, and only in the copy that is kept.
    """

    request_id: str
    attempt: int
    finish_reasons: tuple[str, ...] = ()
    usage: Usage = Usage()
    cost_nano: int = 0
    vectors: tuple[bytes, ...] = ()
    error: str | None = None
    ended_by: str | None = None
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker of this attempt is gone; the submitter decides what becomes of the request."""

    request_id: str
    attempt: int


Event = Piece | End | Lost
_EVENT_TYPES: dict[str, type[Piece] | type[End] | type[Lost]] = {"piece": Piece, "end": End, "lost": Lost}
_EVENT_NAMES = {cls: name for name, cls in _EVENT_TYPES.items()}
_NESTED: dict[type, tuple[str, type]] = {Job: ("sampling", Sampling), End: ("usage", Usage)}
_NESTED_MANY: dict[type, tuple[str, type]] = {End: ("answers", Answer)}

# Per class: (field, default), with MISSING for what must be present.
_DEFAULTS: dict[type, tuple[tuple[str, Any], ...]] = {
    cls: tuple((f.name, f.default) for f in fields(cls)) for cls in (Job, Sampling, Usage, Piece, Answer, End, Lost)
}
_NAMES = {cls: frozenset(name for name, _ in defaults) for cls, defaults in _DEFAULTS.items()}

Record = TypeVar("Record", bound=Job | Sampling | Usage | Piece | Answer | End | Lost)


def to_map(record: Job | Sampling | Usage | Answer | Event) -> dict[str, Any]:
    """Field names to plain values, without what stands at its default."""
    cls = type(record)
    out: dict[str, Any] = {}
    for name, default in _DEFAULTS[cls]:
        value = getattr(record, name)
        if value != default:
            out[name] = value
    if cls in _NESTED:
        name, _ = _NESTED[cls]
        if out.get(name) is not None:
            out[name] = to_map(out[name])
    if cls in _NESTED_MANY:
        name, _ = _NESTED_MANY[cls]
        if name in out:
            out[name] = [to_map(part) for part in out[name]]
    return out


def from_map(cls: type[Record], raw: dict[str, Any]) -> Record:
    """Uses `raw` up: what the class does not know is taken out of it."""
    for unknown in raw.keys() - _NAMES[cls]:
        del raw[unknown]
    if cls in _NESTED:
        name, nested = _NESTED[cls]
        if raw.get(name) is not None:
            raw[name] = from_map(nested, raw[name])
    if cls in _NESTED_MANY:
        name, nested = _NESTED_MANY[cls]
        if name in raw:
            raw[name] = tuple([from_map(nested, part) for part in raw[name]])
    return cls(**raw)


def pack_job(job: Job) -> bytes:
    return _pack({"v": VERSION, **to_map(job)})


def unpack_job(raw: bytes, attempt: int | None = None) -> Job:
    """`attempt` takes the place of what was packed: the record counts attempts, the packed job stays as it is."""
    job = _unpack(raw)
    if attempt is not None:
        job["attempt"] = attempt
    return from_map(Job, job)


def pack_events(events: list[Event]) -> bytes:
    """One message for all events of an engine step that go to one submitter."""
    return _pack({"v": VERSION, "e": [{"k": _EVENT_NAMES[type(event)], **to_map(event)} for event in events]})


def unpack_events(raw: bytes) -> list[Event]:
    events: list[Event] = []
    for entry in _unpack(raw)["e"]:
        cls = _EVENT_TYPES.get(entry["k"])
        if cls is not None:  # a kind that a later release added
            events.append(from_map(cls, entry))
    return events


def _pack(value: dict[str, Any]) -> bytes:
    packed = msgpack.packb(value, use_bin_type=True)
    assert isinstance(packed, bytes)
    return packed


def _unpack(raw: bytes) -> dict[str, Any]:
    value = msgpack.unpackb(raw, use_list=False)
    if not isinstance(value, dict):
        raise TypeError("a wire message is a map")
    return value
