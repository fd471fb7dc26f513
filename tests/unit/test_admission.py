from dataclasses import replace
from pathlib import Path

import pytest

from core import errors
from core.catalog import read_catalog
from core.clock import ManualClock
from core.errors import PlatformError
from core.ids import CountingIds
from core.queue.base import Claim, Price
from core.queue.rules import Rule, RuleKind
from core.text_counter import WordCounter
from core.tokens import ChatTokenizer
from core.wire import CHAT, EMBED, FIM, Sampling
from gateway.admission import SAFE_PROMPT, AdmissionSettings, Admitter
from gateway.principal import Principal
from gateway.requests import ChatRequest, Choice, FimRequest, JsonAnswer, ToolUse, Wish

CATALOG = read_catalog(Path(__file__).parents[2] / "tramontane.toml")
TINY = CATALOG.tier("mistral-tiny").model_copy(update={"context_tokens": 64})
EMBEDDING = CATALOG.tier("mistral-embed")
ECHO = TINY.model_copy(update={"name": "echoing", "engine": "echo"})
CODE = TINY.model_copy(
    update={"name": "code", "tokenizer": "v3", "capabilities": ("completion_chat", "completion_fim")}
)
RULES = (
    Rule(RuleKind.CONCURRENCY, "organisation", "org", 5),
    Rule(RuleKind.TOKENS_PER_MINUTE, "key", "key", 9, tier=TINY.name),
    Rule(RuleKind.TOKENS_PER_MINUTE, "key", "key", 9, tier="another"),
)
PRICES = (Price("1", 140_000, 140_000, 420_000), Price("2", 150_000, 150_000, 430_000, start_ms=9))
PRINCIPAL = Principal(
    "key",
    "ws",
    "org",
    frozenset({"inference"}),
    7,
    3,
    RULES,
    dict.fromkeys((TINY.name, ECHO.name, CODE.name, EMBEDDING.name), PRICES),
)
SKY = {
    "type": "function",
    "function": {
        "name": "sky",
        "description": "",
        "strict": True,
        "parameters": {"type": "object", "properties": {"at": {"type": "integer"}}, "required": ["at"]},
    },
}
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def tokenizer():
    return ChatTokenizer.load("v1")


@pytest.fixture(scope="module")
def v3():
    return ChatTokenizer.load("v3")


@pytest.fixture
def admitter(tokenizer, v3):
    return Admitter(
        catalog=CATALOG,
        tokenizers={TINY.name: tokenizer, ECHO.name: tokenizer, CODE.name: v3},
        counters={EMBEDDING.name: WordCounter()},
        cell="c0",
        ids=CountingIds(),
        clock=ManualClock(1_000_000),
        submitter="gateway-1",
        settings=AdmissionSettings(output_slice_tokens=16, output_expected_tokens=8),
    )


WISHES = Wish.__dataclass_fields__.keys()


def ask(**fields):
    wish = Wish(**{name: fields.pop(name) for name in fields.keys() & WISHES})
    return ChatRequest(**({"tier": TINY, "messages": HELLO, "wish": wish} | fields))


def words(count):
    """A text that takes this many tokens of v1 in a user turn, the template included."""
    return [{"role": "user", "content": "a " * (count - 9) + "b"}]


def refused(admitter, **fields):
    with pytest.raises(PlatformError) as caught:
        admitter.chat(PRINCIPAL, ask(**fields))
    return caught.value


def test_a_chat_becomes_one_admission_with_everything_in_it(admitter, tokenizer):
    admission = admitter.chat(PRINCIPAL, ask(stream=True, max_tokens=20, n=2, seed=5, stop=("x",), top_p=0.5))
    job = admission.job
    assert job.prompt_ids == tokenizer.encode_chat(HELLO)
    assert job.prompt_tokens == len(job.prompt_ids)
    assert job.cost_expected == job.prompt_tokens + 2 * 8
    assert job.deadline_ms == 1_000_000 + 900_000
    assert (job.request_id[:2], job.submitter, job.kind, job.tier) == ("c0", "gateway-1", CHAT, TINY.name)
    assert (job.organisation, job.workspace, job.streamed) == ("org", "ws", True)
    assert job.sampling == Sampling(max_tokens=20, temperature=0.7, top_p=0.5, n=2, seed=5, stop=("x",))
    assert (admission.key_id, admission.generation, admission.rules, admission.weight) == ("key", 7, RULES[:2], 3)
    assert admission.output_reserved == job.output_covered == 2 * 16
    assert admission.prices == PRICES
    assert (job.grammar, job.keep_answer, job.tool_marker, admission.claim) == (None, False, False, None)
    assert admission.queue_wait_ms_max == 120_000


def test_without_max_tokens_the_rest_of_the_context_is_meant(admitter):
    job = admitter.chat(PRINCIPAL, ask()).job
    assert job.sampling.max_tokens == 64 - job.prompt_tokens


def test_temperature_zero_is_kept_and_demands_top_p_one(admitter):
    assert admitter.chat(PRINCIPAL, ask(temperature=0.0)).job.sampling.temperature == 0
    assert refused(admitter, temperature=0.0, top_p=0.9).kind is errors.GREEDY_TOP_P


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "kind"),
    [
        (63, None, None),
        (63, 1, None),
        (64, None, errors.INVALID_ARGUMENTS),
        (60, 4, None),
        (60, 5, errors.INVALID_ARGUMENTS),
        (20, 0, errors.VALIDATION),
        (20, 64, errors.VALIDATION),
        (20, 63, errors.INVALID_ARGUMENTS),
    ],
)
def test_what_fits_a_context_of_64_tokens(admitter, tokenizer, prompt, max_tokens, kind):
    messages = words(prompt)
    assert len(tokenizer.encode_chat(messages)) == prompt
    if kind is None:
        assert admitter.chat(PRINCIPAL, ask(messages=messages, max_tokens=max_tokens)).job.prompt_tokens == prompt
    else:
        assert refused(admitter, messages=messages, max_tokens=max_tokens).kind is kind


def test_a_prompt_that_is_too_long_is_refused_in_mistrals_words(admitter):
    error = refused(admitter, messages=words(80))
    assert error.message == (
        "Prompt contains 80 tokens and 0 draft tokens, too large for model with 64 maximum context length"
    )


def test_a_text_that_cannot_fit_is_refused_without_encoding_it(admitter, monkeypatch):
    monkeypatch.setattr(ChatTokenizer, "encode_chat", lambda *_: pytest.fail("encoded"))
    text = [{"type": "image_url", "image_url": "x"}, {"type": "text", "text": "x" * 10_000_000}]
    error = refused(admitter, messages=[{"role": "user", "content": text}])
    assert "at least" in error.message
    assert error.kind is errors.INVALID_ARGUMENTS


def test_more_least_tokens_than_tokens_is_a_422_that_names_the_field(admitter):
    error = refused(admitter, max_tokens=4, min_tokens=5)
    assert (error.kind, error.details[0]["loc"]) == (errors.VALIDATION, ("body", "min_tokens"))


def test_names_aliases_and_kinds_of_tiers(admitter):
    assert admitter.tier("open-mistral-7b", "chat").name == "mistral-tiny"
    for model, kind in (("nothing", "chat"), ("mistral-embed", "chat"), ("mistral-tiny", "embed")):
        with pytest.raises(PlatformError, match=f"Invalid model: {model}") as caught:
            admitter.tier(model, kind)
        assert caught.value.kind is errors.INVALID_MODEL


def test_texts_become_one_admission(admitter):
    admission = admitter.embed(PRINCIPAL, EMBEDDING, ["one two", "three"])
    assert (admission.job.kind, admission.job.texts, admission.job.sampling) == (EMBED, ("one two", "three"), None)
    assert (admission.job.prompt_tokens, admission.job.cost_expected, admission.output_reserved) == (7, 7, 0)
    assert (admission.prices, admission.job.output_covered) == (PRICES, 0)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["x"] * 257, "Too many inputs in request, split into more batches."),
        (["x " * 253] * 65, "Too many tokens overall, split into more batches."),
        (["x", "x " * 255], "Input 1 has 257 tokens, too large for model with 256 at most"),
    ],
)
def test_bounds_of_an_embedding_request(admitter, texts, says):
    with pytest.raises(PlatformError) as caught:
        admitter.embed(PRINCIPAL, EMBEDDING, texts)
    assert (caught.value.kind, caught.value.message) == (errors.PROMPT_TOO_LARGE, says)


def test_the_bounds_of_an_embedding_request_themselves_are_allowed(admitter):
    assert admitter.embed(PRINCIPAL, EMBEDDING, ["x " * 254] * 64).job.prompt_tokens == 16_384
    assert len(admitter.embed(PRINCIPAL, EMBEDDING, ["x"] * 256).job.texts) == 256


def test_a_claim_goes_along_and_has_the_answer_kept(admitter):
    claim = Claim("key", "digest")
    for admission in (
        admitter.chat(PRINCIPAL, ask(), claim),
        admitter.embed(PRINCIPAL, EMBEDDING, ["x"], claim),
        admitter.fim(PRINCIPAL, FimRequest(CODE, "a", "b"), claim),
    ):
        assert (admission.claim, admission.job.keep_answer) == (claim, True)


def test_a_tier_without_a_price_is_away_and_never_free(admitter):
    for prices in ({}, {TINY.name: ()}):
        with pytest.raises(PlatformError, match="No price is known for mistral-tiny") as caught:
            admitter.chat(replace(PRINCIPAL, prices=prices), ask())
        assert caught.value.kind is errors.UNAVAILABLE


def test_a_tier_that_the_key_may_not_use_is_refused_before_anything_is_counted(admitter, monkeypatch):
    monkeypatch.setattr(ChatTokenizer, "encode_chat", lambda *_: pytest.fail("encoded"))
    stranger = replace(PRINCIPAL, tiers=frozenset({"another"}))
    calls = (
        lambda: admitter.chat(stranger, ask()),
        lambda: admitter.fim(stranger, FimRequest(CODE, "a")),
        lambda: admitter.embed(stranger, EMBEDDING, ["x"]),
    )
    for call in calls:
        with pytest.raises(PlatformError, match="not available in your subscription tier") as caught:
            call()
        assert caught.value.kind is errors.FORBIDDEN
    assert replace(PRINCIPAL, tiers=frozenset({EMBEDDING.name})).tiers
    assert admitter.embed(replace(PRINCIPAL, tiers=frozenset({EMBEDDING.name})), EMBEDDING, ["x"])


def test_the_safety_text_is_sent_but_not_billed(admitter, tokenizer):
    wide = TINY.model_copy(update={"context_tokens": 256})
    job = admitter.chat(PRINCIPAL, ask(tier=wide, safe_prompt=True)).job
    safe = [{"role": "system", "content": SAFE_PROMPT}, *HELLO]
    assert job.prompt_ids == tokenizer.encode_chat(safe)
    assert job.prompt_tokens == len(tokenizer.encode_chat(HELLO))
    assert job.sampling.max_tokens == 256 - len(job.prompt_ids)


def test_a_safety_text_excuses_no_wrong_order(admitter):
    wide = TINY.model_copy(update={"context_tokens": 256})
    alone = [{"role": "assistant", "content": "x", "prefix": True}]
    assert refused(admitter, tier=wide, messages=alone, safe_prompt=True).kind is errors.MESSAGE_ORDER


def test_what_else_shapes_an_answer_reaches_the_job(admitter):
    sampling = admitter.chat(PRINCIPAL, ask(logprobs=3, top_k=7, repetition_penalty=1.5)).job.sampling
    assert (sampling.logprobs, sampling.top_k, sampling.repetition_penalty) == (3, 7, 1.5)


def wide(tier):
    return tier.model_copy(update={"context_tokens": 512})


def test_tools_bring_a_grammar_and_with_tool_tokens_their_marker(admitter):
    use = ToolUse([SKY], Choice.ANY)
    plain = admitter.chat(PRINCIPAL, ask(tier=wide(TINY), tool_use=use)).job
    native = admitter.chat(PRINCIPAL, ask(tier=wide(CODE), tool_use=use)).job
    assert (plain.tool_marker, native.tool_marker) == (False, True)
    assert "TOOL_CALLS" in plain.grammar
    assert native.grammar.startswith("start: calls\ncalls: <[5]>")
    none = admitter.chat(PRINCIPAL, ask(tier=wide(CODE), tool_use=ToolUse([SKY], Choice.NONE))).job
    assert (none.grammar, none.tool_marker) == (None, False)
    assert none.prompt_ids == admitter.chat(PRINCIPAL, ask(tier=CODE)).job.prompt_ids


def test_an_engine_that_cannot_be_constrained_says_so(admitter):
    offered = admitter.chat(PRINCIPAL, ask(tier=wide(ECHO), tool_use=ToolUse([SKY]))).job
    assert offered.grammar is None
    forced = {"tool_use": ToolUse([SKY], Choice.ANY)}, {"json_answer": JsonAnswer()}
    for fields, param in zip(forced, ("tool_choice", "response_format"), strict=True):
        error = refused(admitter, tier=wide(ECHO), **fields)
        assert (error.kind, error.param) == (errors.INVALID_ARGUMENTS, param)
        assert "engine echo" in error.message


PREFIX = [*HELLO, {"role": "assistant", "content": "x", "prefix": True}]


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"tool_use": ToolUse((), Choice.ANY)}, "tool_choice", "No tools provided for tool choice `any`"),
        ({"tool_use": ToolUse([SKY], Choice.ANY, "sea")}, "tool_choice", "Tool choice `sea` not found"),
        (
            {"tool_use": ToolUse([SKY], Choice.ANY), "json_answer": JsonAnswer()},
            "response_format",
            "only compatible with `tool_choice: auto`",
        ),
        ({"messages": PREFIX, "json_answer": JsonAnswer()}, "response_format", "continues a prefix"),
        ({"messages": PREFIX, "tool_use": ToolUse([SKY], Choice.ANY)}, "tool_choice", "continues a prefix"),
        ({"json_answer": JsonAnswer({"not": {}}, strict=True)}, "response_format", "Unimplemented keys"),
        (
            {"tool_use": ToolUse([{"function": {"name": "f", "parameters": {"type": "string"}}}])},
            "tools",
            "parameters of f must be an object",
        ),
        (
            {"tool_use": ToolUse([{"function": {"name": "f", "parameters": {"type": "wrong"}}}])},
            "tools",
            "Invalid tool schema",
        ),
        ({"tool_use": ToolUse([{"function": {"name": "a b", "parameters": {}}}])}, "tools", "Function name was a b"),
    ],
)
def test_contradictions_and_impossible_schemas_name_their_field(admitter, fields, param, says):
    error = refused(admitter, tier=wide(TINY), **fields)
    assert (error.kind, error.param) == (errors.INVALID_ARGUMENTS, param)
    assert says in error.message


def test_filling_in_is_one_admission_of_its_own_kind(admitter, v3):
    admission = admitter.fim(PRINCIPAL, FimRequest(CODE, "def f(", "):", Wish(max_tokens=4, stop=("x",))))
    assert admission.job.kind == FIM
    assert admission.job.prompt_ids == v3.encode_fim("def f(", "):")
    assert admission.job.sampling == Sampling(max_tokens=4, stop=("x",))
    assert admission.job.prompt_tokens == len(admission.job.prompt_ids)


@pytest.mark.parametrize(
    ("tier", "says"),
    [(TINY, "its tokenizer v1 has no tokens for it"), (CODE.model_copy(update={"capabilities": ()}), "does not offer")],
)
def test_a_tier_that_cannot_fill_in_says_why(admitter, tier, says):
    with pytest.raises(PlatformError, match=says) as caught:
        admitter.fim(PRINCIPAL, FimRequest(tier, "a", "b"))
    assert caught.value.kind is errors.INVALID_ARGUMENTS


def test_a_text_too_long_to_fill_in_is_refused(admitter):
    with pytest.raises(PlatformError, match="too large for model with 64"):
        admitter.fim(PRINCIPAL, FimRequest(CODE, "a " * 80))


def test_capabilities_are_what_engine_and_tokenizer_can(admitter):
    assert admitter.capabilities(TINY) == {"completion_chat", "function_calling"}
    assert admitter.capabilities(ECHO) == {"completion_chat"}
    assert admitter.capabilities(CODE) == {"completion_chat", "completion_fim", "function_calling"}
    assert admitter.capabilities(TINY.model_copy(update={"capabilities": ("completion_fim",)})) == {"function_calling"}
    assert admitter.capabilities(EMBEDDING) == frozenset()
