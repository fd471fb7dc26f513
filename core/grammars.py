"""Grammars for constrained answers, in llguidance's Lark form: JSON, JSON by a schema, and calls of tools.

Between tokens of JSON there is at most one space, behind a comma or a colon: white space cannot go on for ever. An
answer may begin with one space, for the first token of many vocabularies brings it along.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from core.tools import CALLS_MAX, ToolForm

GRAMMAR_CHARS_MAX = 65_536
SCHEMA_DEPTH_MAX = 64
REASON_CHARS_MAX = 300
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
# What a schema that need not be followed to the letter may hold beyond what a grammar can express.
_LOOSE = {**_LAYOUT, "lenient": True, "coerce_one_of": True}
_ALTERNATIVES = ("allOf", "anyOf", "oneOf")
_REGEX_SPECIAL = re.compile(r"[\[\]{}()/\\.*+?|^$]")


class GrammarError(ValueError):
    """The schema cannot be made a grammar; the message says why."""


@dataclass(frozen=True, slots=True)
class CallableTool:
    """A tool that may be called: with `strict` its arguments follow the schema in every word, or it is refused."""

    name: str
    parameters: Mapping[str, Any]
    strict: bool = False


def json_object_grammar() -> str:
    return json_schema_grammar(ANY_OBJECT, strict=True)


def json_schema_grammar(schema: Mapping[str, Any], *, strict: bool) -> str:
    return f'start: " "? answer\nanswer: {_json(schema, strict=strict)}\n'


def calls_grammar(form: ToolForm, tools: Sequence[CallableTool], *, parallel: bool) -> str:
    """At least one call, and nothing else."""
    return f"start: calls\n{_calls(form, tools, parallel=parallel)}"


def calls_or_text_grammar(form: ToolForm, tools: Sequence[CallableTool], *, parallel: bool) -> str:
    """Calls, or a text that does not begin like one."""
    marker = _escaped(form.marker)
    text = rf"TEXT: /(?s:.+)/ & ~/\s*{marker}(?s:.*)/"
    return f"start: calls | TEXT |\n{text}\n{_calls(form, tools, parallel=parallel)}"


def calls_or_json_grammar(
    form: ToolForm, tools: Sequence[CallableTool], schema: Mapping[str, Any], *, strict: bool, parallel: bool
) -> str:
    answer = f'answer: " "? {_json(schema, strict=strict)}'
    return f"start: calls | answer\n{answer}\n{_calls(form, tools, parallel=parallel)}"


class GrammarCheck:
    """Compiles grammars as a worker will, over bytes instead of a vocabulary. May be called from several threads."""

    def __init__(self) -> None:
        self._bytes = LLTokenizer("byte")
        self._limits = LLParserLimits(max_grammar_size=100_000, verbose_errors=False)

    def check(self, grammar: str) -> None:
        """About 1.5 ms, up to 0.2 s for the longest. Raises GrammarError for one that allows no answer."""
        if len(grammar) > GRAMMAR_CHARS_MAX:
            raise GrammarError(f"the schemas take {len(grammar)} characters, more than {GRAMMAR_CHARS_MAX}")
        matcher = LLMatcher(self._bytes, grammar, limits=self._limits, log_level=0)
        if not matcher.is_error():
            matcher.compute_bitmask()
        if matcher.is_error():
            raise GrammarError(_reason(matcher.get_error()))


def _calls(form: ToolForm, tools: Sequence[CallableTool], *, parallel: bool) -> str:
    # The text marker and the bracket are one terminal: apart, the first space would be taken for the text's.
    begin = r"/ ?\[/" if form.token_id is not None else rf"/ ?{_escaped(form.marker)} ?\[/"
    token = f"<[{form.token_id}]> " if form.token_id is not None else ""
    more = f" (/, ?/ call){{0,{CALLS_MAX - 1}}}" if parallel else ""
    names = " | ".join(f"call_{index}" for index in range(len(tools)))
    # In a conversation mistral-common writes each call's id behind it, so a model may do so too; it is not used.
    close = '"}"' if form.token_id is None else r'/(, ?"id": ?"[a-zA-Z0-9]{9}")?\}/'
    lines = [f'calls: {token}{begin} call{more} "]"', f"call: {names}"]
    for index, tool in enumerate(tools):
        opening = rf'/\{{"name": ?"{tool.name}", ?"arguments": ?/'
        lines.append(f"call_{index}: {opening} {_json(_arguments(tool), strict=tool.strict)} {close}")
    return "\n".join(lines) + "\n"


def _arguments(tool: CallableTool) -> Mapping[str, Any]:
    kind = tool.parameters.get("type", "object")
    if kind != "object":
        raise GrammarError(f"the parameters of {tool.name} must be an object")
    return {**tool.parameters, "type": "object"}


def _json(schema: Mapping[str, Any], *, strict: bool) -> str:
    _refuse_deep(schema)
    _refuse_circles(schema)
    layout = _LAYOUT if strict else _LOOSE
    return "%json " + json.dumps({**schema, "x-guidance": layout}, ensure_ascii=False)


def _escaped(text: str) -> str:
    return _REGEX_SPECIAL.sub(r"\\\g<0>", text)


def _reason(error: str) -> str:
    """The sentence, without the place in our grammar and the excerpt of it."""
    first = " ".join(line.strip() for line in error.split("\n   1 | ", maxsplit=1)[0].splitlines())
    return re.sub(r"^at \d+\(\d+\): (failed to compile JSON schema: )?", "", first)[:REASON_CHARS_MAX]


def _refuse_deep(schema: Mapping[str, Any]) -> None:
    level: list[Any] = [schema]
    for _ in range(SCHEMA_DEPTH_MAX):
        level = [inner for value in level for inner in _inner(value)]
        if not level:
            return
    raise GrammarError(f"the schema is nested more than {SCHEMA_DEPTH_MAX} deep")


def _inner(value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else ()


def _refuse_circles(schema: Mapping[str, Any]) -> None:
    """A schema that is only ever another name for itself would leave the engine without a token to choose."""
    places: list[Any] = [schema]
    done: set[int] = set()
    while places:
        place = places.pop()
        if isinstance(place, Mapping) and id(place) not in done:
            _follow(schema, place, done)
        places.extend(_inner(place))


def _follow(root: Mapping[str, Any], start: Mapping[str, Any], done: set[int]) -> None:
    open_ids: set[int] = set()
    waiting: list[tuple[Mapping[str, Any], bool]] = [(start, False)]
    while waiting:
        place, left = waiting.pop()
        if left:
            open_ids.discard(id(place))
            done.add(id(place))
            continue
        if id(place) in open_ids:
            raise GrammarError("a $ref of the schema leads back to itself")
        if id(place) in done:
            continue
        open_ids.add(id(place))
        waiting.append((place, True))
        waiting.extend((other, False) for other in _same_place(root, place))


def _same_place(root: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The schemas that this one says the very same value must, or may, follow."""
    same: list[Any] = [entry for name in _ALTERNATIVES for entry in _inner(schema.get(name)) if schema.get(name)]
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        same.append(_pointed(root, reference))
    return [entry for entry in same if isinstance(entry, Mapping)]


def _pointed(root: Mapping[str, Any], reference: str) -> Any:
    place: Any = root
    for part in reference.removeprefix("#").strip("/").split("/") if reference not in ("#", "#/") else ():
        name = part.replace("~1", "/").replace("~0", "~")
        place = place.get(name) if isinstance(place, Mapping) else None
    return place
