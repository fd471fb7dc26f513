"""From a validated request to the one admission call: exact tokens, what is reserved, which limits apply; and from its
refusal to what the caller is told. Used by the HTTP routes and by the batch runner.

What may be asked of a context of M tokens, N of them in the prompt:

| asked | answer |
|---|---|
| N >= M | 400, 3051: no room for a single token |
| max_tokens 0, or >= M, whatever the prompt | 422 |
| N + max_tokens > M | 400, 3051 |
| no max_tokens | M - N |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from core.catalog import Catalog, Tier
from core.clock import Clock
from core.errors import (
    CAPACITY,
    GREEDY_TOP_P,
    INVALID_ARGUMENTS,
    INVALID_MODEL,
    PAYMENT_REQUIRED,
    PROMPT_TOO_LARGE,
    RATE_LIMITED,
    UNAVAILABLE,
    VALIDATION,
    PlatformError,
)
from core.ids import IdSource
from core.queue.base import Admission, Price, Refused, RefusedBy
from core.text_counter import Counter
from core.tokens import ChatTokenizer
from core.wire import CHAT, EMBED, Job, Sampling
from gateway.principal import Principal

PRICE_VERSION = "launch"


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A parsed chat request. `messages` in the API's shape; `temperature` and `max_tokens` None mean the tier's."""

    tier: Tier
    model: str
    messages: Sequence[Mapping[str, Any]]
    stream: bool = False
    temperature: float | None = None
    top_p: float = 1.0
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """`output_slice_tokens` is what money and tokens per minute are reserved for at first, for each choice;
    `output_expected_tokens` is what the fair queue counts on before it knows better.
    """

    request_s_max: int = 900
    queue_wait_s_max: int = 120
    output_slice_tokens: int = 1_024
    output_expected_tokens: int = 256
    embed_texts_max: int = 256
    embed_tokens_max: int = 16_384


class Admitter:
    """`tokenizers` and `counters` by tier name; `submitter` is the id of the process that waits for the answers."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        tokenizers: Mapping[str, ChatTokenizer],
        counters: Mapping[str, Counter],
        cell: str,
        ids: IdSource,
        clock: Clock,
        submitter: str,
        settings: AdmissionSettings,
    ) -> None:
        self._catalog = catalog
        self._prices = {tier.name: Price(PRICE_VERSION, *tier.price.nano_per_thousand()) for tier in catalog.tiers}
        self._tokenizers = tokenizers
        self._counters = counters
        self._cell = cell
        self._ids = ids
        self._clock = clock
        self._submitter = submitter
        self._settings = settings

    def tier(self, model: str, kind: Literal["chat", "embed"]) -> Tier:
        """By name or alias. Raises PlatformError(INVALID_MODEL), also for a tier that does something else."""
        tier = self._catalog.tier(model)
        if tier is None or tier.kind != kind:
            raise PlatformError(INVALID_MODEL, f"Invalid model: {model}", param="model")
        return tier

    def chat(self, principal: Principal, request: ChatRequest) -> Admission:
        """Raises PlatformError for a conversation, a length or a combination that the tier cannot serve."""
        tier = request.tier
        temperature = tier.temperature_default if request.temperature is None else request.temperature
        if temperature == 0 and request.top_p != 1:
            raise PlatformError(GREEDY_TOP_P, "top_p must be 1 when using greedy sampling", param="top_p")
        prompt_ids = self._prompt(tier, request.messages)
        max_tokens = _room(tier, len(prompt_ids), request.max_tokens)
        if request.min_tokens > max_tokens:
            raise _out_of_range("min_tokens", f"Input should be at most max_tokens, which is {max_tokens}")
        sampling = Sampling(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=request.top_p,
            min_tokens=request.min_tokens,
            stop=request.stop,
            seed=request.seed,
            n=request.n,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
        )
        expected = min(max_tokens, self._settings.output_expected_tokens) * request.n
        job = self._job(
            principal,
            tier,
            prompt_tokens=len(prompt_ids),
            output_expected=expected,
            streamed=request.stream,
            prompt_ids=prompt_ids,
            sampling=sampling,
        )
        return self._admission(principal, tier, job, min(max_tokens, self._settings.output_slice_tokens) * request.n)

    def embed(self, principal: Principal, tier: Tier, texts: Sequence[str]) -> Admission:
        """Raises PlatformError(PROMPT_TOO_LARGE) for too many texts or tokens, or one text beyond the tier's window."""
        if len(texts) > self._settings.embed_texts_max:
            message = "Too many inputs in request, split into more batches."
            raise PlatformError(PROMPT_TOO_LARGE, message, param="input")
        counts = self._counters[tier.name].count(texts)
        for index, count in enumerate(counts):
            if count > tier.context_tokens:
                message = f"Input {index} has {count} tokens, too large for model with {tier.context_tokens} at most"
                raise PlatformError(PROMPT_TOO_LARGE, message, param="input")
        if sum(counts) > self._settings.embed_tokens_max:
            message = "Too many tokens overall, split into more batches."
            raise PlatformError(PROMPT_TOO_LARGE, message, param="input")
        job = self._job(
            principal, tier, prompt_tokens=sum(counts), output_expected=0, streamed=False, texts=tuple(texts)
        )
        return self._admission(principal, tier, job, 0)

    def _prompt(self, tier: Tier, messages: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        tokenizer = self._tokenizers[tier.name]
        # A text that cannot fit whatever its tokens are is not worth a second of the event loop to count them.
        at_least = sum(_chars(message) for message in messages) // tokenizer.token_chars_max
        if at_least >= tier.context_tokens:
            raise _too_long(f"Prompt contains at least {at_least} tokens", tier)
        prompt_ids = tokenizer.encode_chat(messages)
        if len(prompt_ids) >= tier.context_tokens:
            raise _too_long(f"Prompt contains {len(prompt_ids)} tokens", tier)
        return prompt_ids

    def _job(
        self,
        principal: Principal,
        tier: Tier,
        *,
        prompt_tokens: int,
        output_expected: int,
        streamed: bool,
        prompt_ids: tuple[int, ...] = (),
        texts: tuple[str, ...] = (),
        sampling: Sampling | None = None,
    ) -> Job:
        return Job(
            request_id=self._ids.request_id(self._cell),
            submitter=self._submitter,
            organisation=principal.organisation,
            workspace=principal.workspace,
            tier=tier.name,
            kind=EMBED if tier.kind == "embed" else CHAT,
            deadline_ms=self._clock.now_ms() + self._settings.request_s_max * 1_000,
            prompt_tokens=prompt_tokens,
            cost_expected=prompt_tokens + output_expected,
            streamed=streamed,
            prompt_ids=prompt_ids,
            texts=texts,
            sampling=sampling,
        )

    def _admission(self, principal: Principal, tier: Tier, job: Job, output_reserved: int) -> Admission:
        return Admission(
            job=job,
            key_id=principal.key_id,
            generation=principal.generation,
            price=self._prices[tier.name],
            rules=principal.rules,
            output_reserved=output_reserved,
            weight=principal.weight,
            queue_wait_ms_max=self._settings.queue_wait_s_max * 1_000,
        )


def refusal_error(refused: Refused) -> PlatformError:
    """429 for what time cures, 402 for money, 503 for our own trouble; each names the rule that refused.

    STALE comes here only when a freshly loaded principal was stale again.
    """
    refusal = refused.refusal
    after_s = None if refusal.retry_after_ms is None else max(1, -(-refusal.retry_after_ms // 1_000))
    figures = f"{refusal.rule} ({refusal.scope}): limit {refusal.limit}, remaining {refusal.remaining}"
    again = "" if after_s is None else f"; try again in {after_s} s"
    match refused.by:
        case RefusedBy.RULE:
            kind, message = RATE_LIMITED, f"Rate limit exceeded. {figures}{again}."
        case RefusedBy.CREDIT:
            kind = PAYMENT_REQUIRED
            message = f"Credit used up: this request needs {refusal.limit} nano-units, {refusal.remaining} are left."
        case RefusedBy.QUEUE_FULL | RefusedBy.QUEUE_SLOW:
            kind, message = CAPACITY, f"Service tier capacity exceeded for this model. {figures}{again}."
        case RefusedBy.BACKLOG:
            kind, message, after_s = UNAVAILABLE, f"Usage cannot be recorded now. {figures}{again}.", after_s or 1
        case RefusedBy.STALE:
            kind, message, after_s = UNAVAILABLE, "The key's settings are being changed; try again.", 1
    return PlatformError(kind, message, retry_after_s=after_s, refusal=refusal)


def _room(tier: Tier, prompt_tokens: int, max_tokens: int | None) -> int:
    room = tier.context_tokens - prompt_tokens
    if max_tokens is None:
        return room
    if max_tokens < 1:
        raise _out_of_range("max_tokens", "Input should be greater than or equal to 1")
    if max_tokens >= tier.context_tokens:
        raise _out_of_range("max_tokens", f"Input should be less than the model's context, {tier.context_tokens}")
    if max_tokens > room:
        raise _too_long(f"Prompt contains {prompt_tokens} tokens, with {max_tokens} max_tokens", tier)
    return max_tokens


def _too_long(begin: str, tier: Tier) -> PlatformError:
    message = f"{begin} and 0 draft tokens, too large for model with {tier.context_tokens} maximum context length"
    return PlatformError(INVALID_ARGUMENTS, message, param="messages")


def _out_of_range(name: str, message: str) -> PlatformError:
    detail = {"type": "value_error", "loc": ("body", name), "msg": message}
    return PlatformError(VALIDATION, message, param=name, details=(detail,))


def _chars(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return len(content or "")
    return sum(len(chunk["text"]) for chunk in content if chunk["type"] == "text")
