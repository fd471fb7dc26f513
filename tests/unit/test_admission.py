from pathlib import Path

import pytest

from core import errors
from core.catalog import read_catalog
from core.clock import ManualClock
from core.errors import PlatformError, Refusal
from core.ids import CountingIds
from core.queue.base import (
    Price,
    Refused,
    RefusedBy,
)
from core.queue.rules import Rule, RuleKind
from core.text_counter import WordCounter
from core.tokens import ChatTokenizer
from core.wire import CHAT, EMBED, Sampling
from gateway.admission import AdmissionSettings, Admitter, ChatRequest, refusal_error
from gateway.principal import Principal

CATALOG = read_catalog(Path(__file__).parents[2] / "tramontane.toml")
TINY = CATALOG.tier("mistral-tiny").model_copy(update={"context_tokens": 64})
EMBEDDING = CATALOG.tier("mistral-embed")
RULES = (Rule(RuleKind.CONCURRENCY, "organisation", "org", 5),)
PRINCIPAL = Principal("key", "ws", "org", frozenset({"inference"}), 7, 3, RULES)
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def tokenizer():
    return ChatTokenizer.load("v1")


@pytest.fixture
def admitter(tokenizer):
    return Admitter(
        catalog=CATALOG,
        tokenizers={TINY.name: tokenizer},
        counters={EMBEDDING.name: WordCounter()},
        cell="c0",
        ids=CountingIds(),
        clock=ManualClock(1_000_000),
        submitter="gateway-1",
        settings=AdmissionSettings(output_slice_tokens=16, output_expected_tokens=8),
    )


def ask(**fields):
    return ChatRequest(**({"tier": TINY, "model": "tiny", "messages": HELLO} | fields))


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
    assert (admission.key_id, admission.generation, admission.rules, admission.weight) == ("key", 7, RULES, 3)
    assert admission.output_reserved == 2 * 16
    assert admission.price == Price("launch", 140_000, 140_000, 420_000)
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
    assert admission.price == Price("launch", 100_000, 100_000, 0)


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


@pytest.mark.parametrize(
    ("by", "retry_after_ms", "kind", "after_s"),
    [
        (RefusedBy.RULE, 1_001, errors.RATE_LIMITED, 2),
        (RefusedBy.CREDIT, None, errors.PAYMENT_REQUIRED, None),
        (RefusedBy.QUEUE_FULL, 1_000, errors.CAPACITY, 1),
        (RefusedBy.QUEUE_SLOW, 90_000, errors.CAPACITY, 90),
        (RefusedBy.BACKLOG, 0, errors.UNAVAILABLE, 1),
        (RefusedBy.STALE, None, errors.UNAVAILABLE, 1),
    ],
)
def test_each_refusal_has_its_status_and_its_time(by, retry_after_ms, kind, after_s):
    error = refusal_error(Refused(by, Refusal("requests_per_minute", "key", 60, 3, retry_after_ms)))
    assert (error.kind, error.retry_after_s) == (kind, after_s)
    assert error.refusal.rule == "requests_per_minute"


def test_a_broken_limit_names_rule_scope_value_remaining_and_time():
    error = refusal_error(Refused(RefusedBy.RULE, Refusal("tokens_per_minute", "workspace", 600, 12, 4_000)))
    assert error.message.startswith("Rate limit exceeded.")
    for word in ("tokens_per_minute", "workspace", "600", "12", "4 s"):
        assert word in error.message
