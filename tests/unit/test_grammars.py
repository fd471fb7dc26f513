import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from core.grammars import (
    GRAMMAR_CHARS_MAX,
    CallableTool,
    GrammarCheck,
    GrammarError,
    calls_grammar,
    calls_or_json_grammar,
    calls_or_text_grammar,
    json_object_grammar,
    json_schema_grammar,
)
from core.tools import MARKER, ToolForm

TEXT, NATIVE = ToolForm(MARKER), ToolForm(MARKER, 5)
AT = {"type": "object", "properties": {"at": {"type": "integer"}}, "required": ["at"], "additionalProperties": False}
TOOLS = [CallableTool("sky", AT, strict=True), CallableTool("any-thing_1", {})]
ONE = '[TOOL_CALLS] [{"name": "sky", "arguments": {"at": 1}}]'
TWO = '[TOOL_CALLS] [{"name":"sky","arguments":{"at":1}}, {"name": "any-thing_1", "arguments": {"x": [1, 2]}}]'


@pytest.fixture(scope="module")
def checker():
    return GrammarCheck()


@pytest.fixture(scope="module")
def over_bytes():
    return LLTokenizer("byte")


@pytest.fixture
def allows(checker, over_bytes):
    def ask(grammar, text):
        checker.check(grammar)
        matcher = LLMatcher(over_bytes, grammar, log_level=0)
        raw = list(text.encode())
        return matcher.try_consume_tokens(raw) == len(raw) and matcher.is_accepting()

    return ask


@pytest.mark.parametrize("text", [ONE, " " + ONE, TWO])
def test_a_forced_call_follows_the_schemas(allows, text):
    assert allows(calls_grammar(TEXT, TOOLS, parallel=True), text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The sky",
        "[TOOL_CALLS] []",
        ONE.replace("sky", "sea"),
        ONE.replace("1", '"1"'),
        ONE.replace('"at": 1', ""),
        ONE + ".",
        ONE.replace("}}]", "},  }]"),
    ],
)
def test_a_forced_call_is_nothing_else(allows, text):
    assert not allows(calls_grammar(TEXT, TOOLS, parallel=True), text)


def test_one_call_at_a_time(allows):
    grammar = calls_grammar(TEXT, TOOLS, parallel=False)
    assert allows(grammar, ONE)
    assert not allows(grammar, TWO)


@pytest.mark.parametrize("text", ["", " ", "Blue.", "[TOOL", "See [TOOL_CALLS] there", "\n", ONE, " " + TWO])
def test_left_free_it_is_a_text_or_calls(allows, text):
    assert allows(calls_or_text_grammar(TEXT, TOOLS, parallel=True), text)


@pytest.mark.parametrize("text", ["[TOOL_CALLS]", " [TOOL_CALLS] so", "\n[TOOL_CALLS] []", ONE[:-1], ONE + " "])
def test_a_text_that_begins_like_a_call_is_one(allows, text):
    assert not allows(calls_or_text_grammar(TEXT, TOOLS, parallel=True), text)


def test_the_marker_may_be_a_token_of_its_own(allows):
    rest = ONE.removeprefix(MARKER)
    for grammar in (calls_grammar(NATIVE, TOOLS, parallel=True), calls_or_text_grammar(NATIVE, TOOLS, parallel=True)):
        assert allows(grammar, "\5" + rest)
        assert allows(grammar, "\5" + rest.lstrip())
    assert not allows(calls_or_text_grammar(NATIVE, TOOLS, parallel=True), ONE)


def test_a_token_form_may_carry_the_id_that_the_prompt_form_has(allows):
    rest = ONE.removeprefix(MARKER).replace("}}]", '}, "id": "abcdefghi"}]')
    assert allows(calls_grammar(NATIVE, TOOLS, parallel=True), "\5" + rest)
    assert not allows(calls_grammar(TEXT, TOOLS, parallel=True), MARKER + rest)


def test_json_or_calls(allows):
    grammar = calls_or_json_grammar(TEXT, TOOLS, {"type": "object"}, strict=True, parallel=True)
    for text in (ONE, " " + TWO, '{"a": 1}', ' {"a":1}'):
        assert allows(grammar, text)
    for text in ("Blue.", "[1]", ""):
        assert not allows(grammar, text)


@pytest.mark.parametrize(
    ("text", "fits"),
    [('{"a": {"b": [1, null]}}', True), (" {}", True), ("[]", False), ('{\n"a": 1}', False), ('{"a":  1}', False)],
)
def test_any_object_with_little_white_space(allows, text, fits):
    assert allows(json_object_grammar(), text) is fits


WORDS = st.text("ab é🦊[]{}:,", max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-999, 999) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(value=VALUES)
def test_any_json_that_the_schema_means_is_allowed(checker, over_bytes, value):
    grammar = json_schema_grammar({"const": value}, strict=True)
    checker.check(grammar)
    matcher = LLMatcher(over_bytes, grammar, log_level=0)
    raw = list(json.dumps(value, ensure_ascii=False).encode())
    assert matcher.try_consume_tokens(raw) == len(raw)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"not": {"type": "string"}}, 'Unimplemented keys: ["not"]'),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}], "uniqueItems": True}, "Unimplemented keys"),
    ],
)
def test_only_a_strict_schema_must_be_followed_in_every_word(checker, schema, says):
    with pytest.raises(GrammarError) as caught:
        checker.check(json_schema_grammar(schema, strict=True))
    assert says in str(caught.value)
    checker.check(json_schema_grammar(schema, strict=False))


def nested(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


IMPOSSIBLE = [
    ({"type": "string", "minLength": 3, "maxLength": 1}, "Unsatisfiable"),
    ({"type": "wrong"}, "Invalid type"),
    ({"enum": []}, "Unsatisfiable"),
    ({"$ref": "https://example.com/x"}, "not present in a registry"),
    ({"$ref": "#/nowhere"}, "does not exist"),
    ({"type": "string", "pattern": "(a"}, "regex parse error"),
    ({"type": "string", "pattern": "(?=a)"}, "look-around"),
    ({"$ref": "#"}, "leads back to itself"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}, "leads back to itself"),
    ({"type": "array", "items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"$ref": "#/$defs/a"}}}, "leads back to itself"),
    (nested(40), "nested more than 64 deep"),
    ({"type": "object", "properties": {f"p{i:0900}": {} for i in range(75)}}, f"more than {GRAMMAR_CHARS_MAX}"),
    ({"type": "integer", "maximum": 10**400}, ""),
]


@pytest.mark.parametrize(("schema", "says"), IMPOSSIBLE)
@pytest.mark.parametrize("strict", [True, False])
def test_a_schema_that_cannot_be_served_says_why(checker, schema, says, strict):
    with pytest.raises(GrammarError) as caught:
        checker.check(json_schema_grammar(schema, strict=strict))
    assert says in str(caught.value)
    assert "x-guidance" not in str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"next": {"$ref": "#"}}},
        {"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"},
        {"anyOf": [{"$ref": "#/$defs/a~1b"}, {"$ref": "#/$defs/a~1b"}], "$defs": {"a/b": {"type": "null"}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "$id": "x", "title": "T", "type": "integer"},
    ],
)
def test_a_schema_may_name_itself_further_down(checker, schema):
    checker.check(json_schema_grammar(schema, strict=True))


def test_parameters_must_be_an_object(checker):
    with pytest.raises(GrammarError, match="parameters of f must be an object"):
        calls_grammar(TEXT, [CallableTool("f", {"type": "array"})], parallel=True)
