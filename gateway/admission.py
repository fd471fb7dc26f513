"""From a validated request to the one admission call: exact tokens, what is reserved, which limits apply.
Used by the HTTP routes and by the batch runner.

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
    FORBIDDEN,
    GREEDY_TOP_P,
    INVALID_ARGUMENTS,
    INVALID_MODEL,
    PROMPT_TOO_LARGE,
    UNAVAILABLE,
    VALIDATION,
    PlatformError,
)
from core.grammars import GrammarCheck
from core.ids import IdSource
from core.queue.base import Admission, Claim
from core.text_counter import Counter
from core.tokens import ChatTokenizer
from core.wire import CHAT, EMBED, FIM, Job, Sampling
from gateway.constraints import FREE_ENGINES, constraint
from gateway.principal import Principal
from gateway.requests import ChatRequest, FimRequest, Wish

SAFE_PROMPT = (
    "Answer with care, respect and truth. Help as well as you can within what is safe. Leave out what would harm, "
    "demean or deceive anyone, or treat people unfairly. Keep your answers fair and kind."
)
PRICE_RETRY_S = 5


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
    """`tokenizers` and `counters` by tier name; `submitter` is the id of the process that waits for the answers. Its
    methods may be called from several threads.
    """

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
        self._tokenizers = tokenizers
        self._counters = counters
        self._cell = cell
        self._ids = ids
        self._clock = clock
        self._submitter = submitter
        self._settings = settings
        self._grammars = GrammarCheck()

    def tier(self, model: str, kind: Literal["chat", "embed"]) -> Tier:
        """By name or alias. Raises PlatformError(INVALID_MODEL), also for a tier that does something else."""
        tier = self._catalog.tier(model)
        if tier is None or tier.kind != kind:
            raise PlatformError(INVALID_MODEL, f"Invalid model: {model}", param="model")
        return tier

    def tokenizer(self, tier: Tier) -> ChatTokenizer:
        return self._tokenizers[tier.name]

    def capabilities(self, tier: Tier) -> frozenset[str]:
        """What a tier states, as far as its tokenizer has it, and function calling wherever its engine can."""
        tokenizer = self._tokenizers.get(tier.name)
        if tokenizer is None:
            return frozenset(tier.capabilities)
        found = set(tier.capabilities) - {"function_calling"}
        if tokenizer.tool_form is not None and tier.engine not in FREE_ENGINES:
            found.add("function_calling")
        return frozenset(found if tokenizer.has_fim else found - {"completion_fim"})

    def chat(self, principal: Principal, request: ChatRequest, claim: Claim | None = None) -> Admission:
        """Raises PlatformError for a conversation, a length or a combination that the tier cannot serve."""
        tier = request.tier
        refuse_foreign(principal, tier)
        temperature = _temperature(tier, request.wish)
        prompt_ids, billed_tokens = self._prompt(request)
        tokenizer = self._tokenizers[tier.name]
        form = tokenizer.tool_form
        grammar = constraint(request, form, self._grammars)
        sampling = _sampling(tier, request.wish, temperature, len(prompt_ids))
        job = self._job(
            principal,
            tier,
            CHAT,
            prompt_ids=prompt_ids,
            prompt_tokens=billed_tokens,
            sampling=sampling,
            streamed=request.wish.stream,
            claim=claim,
            grammar=grammar,
            tool_marker=bool(request.tool_use.offered) and form is not None and form.token_id is not None,
            continues=bool(request.prefix),
        )
        return self._admission(principal, tier, job, claim)

    def fim(self, principal: Principal, request: FimRequest, claim: Claim | None = None) -> Admission:
        """Raises PlatformError for a tier that does not fill in, or a length that it cannot serve."""
        tier, wish = request.tier, request.wish
        refuse_foreign(principal, tier)
        if "completion_fim" not in self.capabilities(tier):
            lacks = "the tier does not offer it"
            if not self._tokenizers[tier.name].has_fim:
                lacks = f"its tokenizer {tier.tokenizer} has no tokens for it"
            message = f"Fill-in-the-middle is not enabled for this model: {lacks}"
            raise PlatformError(INVALID_ARGUMENTS, message, param="model")
        temperature = _temperature(tier, wish)
        tokenizer = self._tokenizers[tier.name]
        _refuse_hopeless(len(request.prompt) + len(request.suffix), tier, tokenizer)
        prompt_ids = tokenizer.encode_fim(request.prompt, request.suffix)
        if len(prompt_ids) >= tier.context_tokens:
            raise _too_long(f"Prompt contains {len(prompt_ids)} tokens", tier, "prompt")
        sampling = _sampling(tier, wish, temperature, len(prompt_ids))
        job = self._job(
            principal,
            tier,
            FIM,
            prompt_ids=prompt_ids,
            prompt_tokens=len(prompt_ids),
            sampling=sampling,
            streamed=wish.stream,
            claim=claim,
            continues=True,
        )
        return self._admission(principal, tier, job, claim)

    def embed(self, principal: Principal, tier: Tier, texts: Sequence[str], claim: Claim | None = None) -> Admission:
        """Raises PlatformError(PROMPT_TOO_LARGE) for too many texts or tokens, or one text beyond the tier's window."""
        refuse_foreign(principal, tier)
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
        job = self._job(principal, tier, EMBED, prompt_tokens=sum(counts), texts=tuple(texts), claim=claim)
        return self._admission(principal, tier, job, claim)

    def _prompt(self, request: ChatRequest) -> tuple[tuple[int, ...], int]:
        """The ids to continue, and how many of them are billed: the safety text is not."""
        tier, messages = request.tier, request.messages
        tokenizer = self._tokenizers[tier.name]
        _refuse_hopeless(sum(_chars(message) for message in messages), tier, tokenizer)
        prompt_ids = tokenizer.encode_chat(messages, request.tool_use.offered)
        billed_tokens = len(prompt_ids)
        if request.safe_prompt:
            safe = {"role": "system", "content": SAFE_PROMPT}
            prompt_ids = tokenizer.encode_chat([safe, *messages], request.tool_use.offered)
        if len(prompt_ids) >= tier.context_tokens:
            raise _too_long(f"Prompt contains {len(prompt_ids)} tokens", tier)
        return prompt_ids, billed_tokens

    def _job(
        self,
        principal: Principal,
        tier: Tier,
        kind: str,
        *,
        prompt_tokens: int,
        claim: Claim | None,
        streamed: bool = False,
        prompt_ids: tuple[int, ...] = (),
        texts: tuple[str, ...] = (),
        sampling: Sampling | None = None,
        grammar: str | None = None,
        tool_marker: bool = False,
        continues: bool = False,
    ) -> Job:
        settings = self._settings
        expected = covered = 0
        if sampling is not None:
            expected = min(sampling.max_tokens, settings.output_expected_tokens) * sampling.n
            covered = min(sampling.max_tokens, settings.output_slice_tokens) * sampling.n
        return Job(
            request_id=self._ids.request_id(self._cell),
            submitter=self._submitter,
            organisation=principal.organisation,
            workspace=principal.workspace,
            tier=tier.name,
            kind=kind,
            deadline_ms=self._clock.now_ms() + settings.request_s_max * 1_000,
            prompt_tokens=prompt_tokens,
            cost_expected=prompt_tokens + expected,
            streamed=streamed,
            prompt_ids=prompt_ids,
            texts=texts,
            sampling=sampling,
            grammar=grammar,
            output_covered=covered,
            keep_answer=claim is not None,
            tool_marker=tool_marker,
            continues=continues,
        )

    def _admission(self, principal: Principal, tier: Tier, job: Job, claim: Claim | None) -> Admission:
        prices = principal.prices.get(tier.name)
        if not prices:
            message = f"No price is known for {tier.name}, so it cannot be served now."
            raise PlatformError(UNAVAILABLE, message, param="model", retry_after_s=PRICE_RETRY_S)
        return Admission(
            job=job,
            key_id=principal.key_id,
            generation=principal.generation,
            prices=prices,
            rules=tuple([rule for rule in principal.rules if rule.tier in ("", tier.name)]),
            output_reserved=job.output_covered,
            weight=principal.weight,
            queue_wait_ms_max=self._settings.queue_wait_s_max * 1_000,
            claim=claim,
        )


def refuse_foreign(principal: Principal, tier: Tier) -> None:
    """Raises PlatformError(FORBIDDEN) for a tier that the key may not use."""
    if principal.tiers is not None and tier.name not in principal.tiers:
        raise PlatformError(FORBIDDEN, "This model is not available in your subscription tier", param="model")


def _temperature(tier: Tier, wish: Wish) -> float:
    temperature = tier.temperature_default if wish.temperature is None else wish.temperature
    if temperature == 0 and wish.top_p != 1:
        raise PlatformError(GREEDY_TOP_P, "top_p must be 1 when using greedy sampling", param="top_p")
    return temperature


def _sampling(tier: Tier, wish: Wish, temperature: float, prompt_tokens: int) -> Sampling:
    max_tokens = _room(tier, prompt_tokens, wish.max_tokens)
    if wish.min_tokens > max_tokens:
        raise _out_of_range("min_tokens", f"Input should be at most max_tokens, which is {max_tokens}")
    return Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=wish.top_p,
        min_tokens=wish.min_tokens,
        stop=wish.stop,
        seed=wish.seed,
        n=wish.n,
        presence_penalty=wish.presence_penalty,
        frequency_penalty=wish.frequency_penalty,
        logprobs=wish.logprobs,
        top_k=wish.top_k,
        repetition_penalty=wish.repetition_penalty,
    )


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


def _refuse_hopeless(chars: int, tier: Tier, tokenizer: ChatTokenizer) -> None:
    """A text that cannot fit whatever its tokens are is not worth a second of work to count them."""
    at_least = chars // tokenizer.token_chars_max
    if at_least >= tier.context_tokens:
        raise _too_long(f"Prompt contains at least {at_least} tokens", tier)


def _too_long(begin: str, tier: Tier, param: str = "messages") -> PlatformError:
    message = f"{begin} and 0 draft tokens, too large for model with {tier.context_tokens} maximum context length"
    return PlatformError(INVALID_ARGUMENTS, message, param=param)


def _out_of_range(name: str, message: str) -> PlatformError:
    detail = {"type": "value_error", "loc": ("body", name), "msg": message}
    return PlatformError(VALIDATION, message, param=name, details=(detail,))


def _chars(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return len(content or "")
    return sum(len(chunk["text"]) for chunk in content if chunk["type"] == "text")
