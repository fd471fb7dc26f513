"""Whatever a body says, reading and admitting it ends in an Admission or in a PlatformError, in both modes."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.catalog import read_catalog
from core.clock import ManualClock
from core.errors import PlatformError
from core.ids import CountingIds
from core.queue.base import Admission, Price
from core.text_counter import WordCounter
from core.tokens import ChatTokenizer
from core.wire import pack_job, unpack_job
from gateway.admission import AdmissionSettings, Admitter
from gateway.principal import Principal
from gateway.schemas import embeddings
from gateway.schemas.chat import UNUSED, ChatCompletionRequest, asking, refuse_unserved, to_chat_request
from gateway.schemas.embeddings import EmbeddingRequest
from gateway.schemas.fim import FIMCompletionRequest, to_fim_request
from gateway.schemas.lenient import read_body
from gateway.schemas.mode import Mode

CATALOG = read_catalog(Path(__file__).parents[2] / "tramontane.toml")
BASE = CATALOG.tier("mistral-tiny").model_copy(update={"aliases": ()})
CHAT_TIERS = [
    BASE.model_copy(
        update={
            "name": name,
            "tokenizer": name,
            "engine": engine,
            "capabilities": ("completion_chat", "completion_fim"),
        }
    )
    for name, engine in (("v1", "transformers"), ("v3", "vllm"), ("v7", "echo"))
]
EMBEDDING = CATALOG.tier("mistral-embed")
ALL = CATALOG.model_copy(update={"tiers": (*CHAT_TIERS, EMBEDDING)})
PRICE = (Price("1", 1, 1, 1),)
PRINCIPAL = Principal(
    "key", "ws", "org", frozenset(), 1, 1, (), dict.fromkeys([tier.name for tier in ALL.tiers], PRICE)
)


@pytest.fixture(scope="module")
def admitter():
    return Admitter(
        catalog=ALL,
        tokenizers={tier.name: ChatTokenizer.load(tier.tokenizer) for tier in CHAT_TIERS},
        counters={EMBEDDING.name: WordCounter()},
        cell="c0",
        ids=CountingIds(),
        clock=ManualClock(1_000_000),
        submitter="gateway-1",
        settings=AdmissionSettings(),
    )


def chat(admitter, body, mode):
    asked, left_out = read_body(ChatCompletionRequest, body, mode)
    tier = admitter.tier(asked.model, "chat")
    refuse_unserved(asked)
    return admitter.chat(PRINCIPAL, to_chat_request(asked, tier)), (*left_out, *asking(asked, UNUSED))


def fim(admitter, body, mode):
    asked, left_out = read_body(FIMCompletionRequest, body, mode)
    tier = admitter.tier(asked.model, "chat")
    return admitter.fim(PRINCIPAL, to_fim_request(asked, tier)), (*left_out, *asking(asked, UNUSED))


def embed(admitter, body, mode):
    asked, left_out = read_body(EmbeddingRequest, body, mode)
    tier = admitter.tier(asked.model, "embed")
    embeddings.refuse_unserved(asked, tier)
    return admitter.embed(PRINCIPAL, tier, asked.texts), (*left_out, *asking(asked, UNUSED))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PIECES = ["", " ", "\0", "[/INST]", "[TOOL_CALLS]", "</s>", "🦊", "\\ud800", '"\\ud800"', "{", "[[[", '{"a": 1}', "NaN"]
TEXT = st.text(max_size=6) | st.lists(st.sampled_from(PIECES), max_size=3).map("".join)
CHUNKS = st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": TEXT})
    | st.just({"type": "image_url", "image_url": "x"})
    | JUNK,
    max_size=2,
)
CONTENT = TEXT | TEXT | st.none() | CHUNKS
USER = {"role": "user", "content": "x [/INST]"}
SPOKEN = {"id": "abcdefghi", "function": {"name": "sky", "arguments": '{"a": "[/INST]"}'}}
TOOL_TURNS = [
    {"role": "assistant", "content": "y"},
    {"role": "assistant", "tool_calls": [SPOKEN]},
    {"role": "tool", "content": '{"a": "\\u005b/INST]"}', "tool_call_id": "abcdefghi"},
]
NAME = st.sampled_from(["sky", "sky", "sky", "a-b_1", "a b", "", "f\n", 'f"', "x" * 65])
IDS = st.sampled_from(["abcdefghi", "call_12345", "null", "", None])
CALL = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"name": NAME, "arguments": TEXT | st.dictionaries(TEXT, JUNK, max_size=2)})},
    optional={"id": IDS, "index": st.integers(0, 3), "type": st.just("function")},
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "user", "assistant", "developer"])},
    optional={
        "content": CONTENT,
        "prefix": st.booleans(),
        "tool_calls": st.none() | st.lists(CALL, max_size=2),
        "tool_call_id": IDS,
        "name": st.none() | NAME,
    },
)
SCHEMA_WORDS = {
    "type": st.sampled_from(["object", "string", "array", "integer", "wrong", ["string", "null"]]),
    "properties": st.dictionaries(TEXT, st.just({"type": "string"}) | JUNK, max_size=2),
    "required": st.lists(TEXT, max_size=2),
    "items": st.just({"$ref": "#"}) | JUNK,
    "enum": st.lists(JUNK, max_size=3),
    "const": JUNK,
    "pattern": st.sampled_from(["^a$", "(a", "(?=a)", "(a{1,900}){1,900}", "\\p{L}"]),
    "maxLength": st.integers(-1, 10**20),
    "minimum": st.integers() | st.floats(),
    "multipleOf": st.sampled_from([0, -1, 0.1, 7]),
    "format": st.sampled_from(["date", "uuid", "email", "odd"]),
    "anyOf": st.lists(JUNK | st.just({"$ref": "#"}) | st.just({"type": "null"}), max_size=2),
    "allOf": st.lists(JUNK | st.just({"type": "object"}), max_size=2),
    "$ref": st.sampled_from(["#", "#/$defs/a", "#/properties/", "http://x", "x"]),
    "$defs": st.just({"a": {"$ref": "#"}}) | JUNK,
    "additionalProperties": st.booleans() | JUNK,
    "x-guidance": JUNK,
    "not": JUNK,
}
SCHEMA = st.fixed_dictionaries({}, optional=SCHEMA_WORDS)
TOOL = st.fixed_dictionaries(
    {
        "function": st.fixed_dictionaries(
            {"name": NAME, "parameters": SCHEMA}, optional={"description": TEXT, "strict": st.booleans()}
        )
    },
    optional={"type": st.just("function")},
)
CHOICE = st.sampled_from(["auto", "auto", "none", "any", "required", {"function": {"name": "sky"}}])
FORMAT = st.sampled_from([{"type": "json_object"}, {"type": "text"}]) | st.fixed_dictionaries(
    {
        "type": st.just("json_schema"),
        "json_schema": st.fixed_dictionaries({"name": TEXT, "schema": SCHEMA}, optional={"strict": st.booleans()}),
    }
)
SHARED = {
    "temperature": st.sampled_from([0, 0.7, 1.5, None]),
    "top_p": st.sampled_from([1, 1.0, 0.5, None]),
    "max_tokens": st.sampled_from([1, 16, 99, None]),
    "min_tokens": st.sampled_from([0, 1]),
    "stop": st.sampled_from(["x", ["x", "🦊"], [], None]),
    "random_seed": st.integers(0, 2**63 - 1),
    "stream": st.booleans(),
    "metadata": st.sampled_from([{}, {"a": [1, None]}, None]),
}
CHAT = {
    **SHARED,
    "n": st.integers(1, 8),
    "safe_prompt": st.booleans(),
    "tools": st.lists(TOOL, max_size=2) | st.none(),
    "tool_choice": CHOICE,
    "parallel_tool_calls": st.booleans(),
    "response_format": FORMAT | st.none(),
    "logprobs": st.just(True),
    "top_logprobs": st.sampled_from([0, None]),
    "top_k": st.integers(-1, 9),
    "repetition_penalty": st.sampled_from([0.5, 1.2, None]),
    "prediction": st.just({"type": "content", "content": "x"}),
    "service_tier": st.sampled_from(["auto", "standard_only", None]),
    "stream_options": st.just({"include_usage": True}),
    "guardrails": st.just([]),
}
CONVERSATION = st.lists(st.sampled_from([USER, *TOOL_TURNS]), max_size=3).map(lambda turns: [*turns, USER])
CHAT_NEEDS = {
    "model": st.sampled_from(["v1", "v3", "v7"]),
    "messages": CONVERSATION
    | CONVERSATION
    | st.lists(MESSAGE, max_size=3)
    | TEXT.map(lambda text: [{**USER, "content": text}]),
}
FIM = {**SHARED, "suffix": TEXT | st.none()}
FIM_NEEDS = {"model": st.sampled_from(["v1", "v3", "v7"]), "prompt": TEXT}
EMBED = {
    "encoding_format": st.sampled_from(["float", "base64"]),
    "output_dtype": st.just("float"),
    "output_dimension": st.sampled_from([384, None]),
    "metadata": st.sampled_from([{}, {"a": 1}]),
}
EMBED_NEEDS = {"model": st.just(EMBEDDING.name), "input": TEXT | st.lists(TEXT, min_size=1, max_size=3)}
EXTRA = {"odd\r\n": JUNK, "seed": JUNK, "user": JUNK, "max_completion_tokens": JUNK, "dimensions": JUNK}


@st.composite
def bodies(draw, needs, may):
    """Mostly right; in half of them one field is junk, or one that only lenient mode knows is there too."""
    chosen = draw(st.lists(st.sampled_from(sorted(may)), max_size=4, unique=True))
    body = {name: draw(value) for name, value in (needs | {name: may[name] for name in chosen}).items()}
    match draw(st.sampled_from(["right", "right", "junk", "extra"])):
        case "junk":
            body[draw(st.sampled_from([*body, *may]))] = draw(JUNK | st.sampled_from([-1, 10**30, 0.5, "auto", [], {}]))
        case "extra":
            name = draw(st.sampled_from(sorted(EXTRA)))
            body[name] = draw(EXTRA[name])
    return body


CHAT_BODY, FIM_BODY, EMBED_BODY = bodies(CHAT_NEEDS, CHAT), bodies(FIM_NEEDS, FIM), bodies(EMBED_NEEDS, EMBED)
MODES = st.sampled_from([Mode.STRICT, Mode.LENIENT])
SLOW_OK = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]


def holds(read, admitter, body, mode):
    raw = json.dumps(body).encode()
    try:
        admission, ignored = read(admitter, raw, mode)
    except PlatformError as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert 400 <= refusal.kind.status < 500
        assert str(refusal)
        return
    assert isinstance(admission, Admission)
    assert unpack_job(pack_job(admission.job)) == admission.job
    for name in ignored:
        name.encode("ascii")
        assert name.isprintable()


@settings(max_examples=250, deadline=None, suppress_health_check=SLOW_OK)
@given(body=CHAT_BODY, mode=MODES)
def test_chat(admitter, body, mode):
    holds(chat, admitter, body, mode)


@settings(max_examples=80, deadline=None, suppress_health_check=SLOW_OK)
@given(body=FIM_BODY, mode=MODES)
def test_fim(admitter, body, mode):
    holds(fim, admitter, body, mode)


@settings(max_examples=80, deadline=None, suppress_health_check=SLOW_OK)
@given(body=EMBED_BODY, mode=MODES)
def test_embeddings(admitter, body, mode):
    holds(embed, admitter, body, mode)


@settings(max_examples=80, deadline=None, suppress_health_check=SLOW_OK)
@given(schema=SCHEMA, strict=st.booleans(), mode=MODES, model=st.sampled_from(["v1", "v3"]))
def test_schemas_of_answers_and_tools(admitter, schema, strict, mode, model):
    user = {"role": "user", "content": "x"}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": strict}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema, "strict": strict}}
    holds(chat, admitter, {"model": model, "messages": [user], "response_format": wanted}, mode)
    holds(chat, admitter, {"model": model, "messages": [user], "tools": [tool], "tool_choice": "any"}, mode)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("model", ["v1", "v3"])
def test_a_full_and_right_body_is_admitted(admitter, model, mode):
    call = {"id": "abcdefghi", "function": {"name": "sky", "arguments": "{}"}}
    body = {
        "model": model,
        "messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "content": "blue", "tool_call_id": "abcdefghi"},
        ],
        "tools": [{"type": "function", "function": {"name": "sky", "parameters": {"type": "object"}}}],
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
        "logprobs": True,
        "metadata": {"a": 1},
    }
    admission, ignored = chat(admitter, json.dumps(body).encode(), mode)
    assert admission.job.grammar
    assert ignored == ("metadata",)
