"""The body of POST /v1/fim/completions."""

from pydantic import Field

from core.catalog import Tier
from gateway.requests import FimRequest, Wish
from gateway.schemas.fields import (
    IGNORED,
    CacheKey,
    JsonObject,
    ModelName,
    Seed,
    Stops,
    Temperature,
    TokenCount,
    TopP,
    stop_texts,
)
from gateway.schemas.parsing import Strict


class FIMCompletionRequest(Strict):
    model: ModelName
    prompt: str = Field(description="The text before what is to be filled in.")
    suffix: str | None = Field(default=None, description="The text behind it.")
    temperature: Temperature | None = Field(default=None, description="Omitted: the tier's default_model_temperature.")
    top_p: TopP | None = None
    max_tokens: TokenCount | None = Field(default=None, description="Omitted: what the context leaves.")
    min_tokens: TokenCount | None = None
    stream: bool = False
    stop: Stops | None = None
    random_seed: Seed | None = None
    metadata: JsonObject | None = Field(default=None, description=IGNORED)
    prompt_cache_key: CacheKey | None = Field(default=None, description=IGNORED)


def to_fim_request(asked: FIMCompletionRequest, tier: Tier) -> FimRequest:
    wish = Wish(
        stream=asked.stream,
        temperature=asked.temperature,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        max_tokens=asked.max_tokens,
        min_tokens=asked.min_tokens or 0,
        stop=stop_texts(asked.stop),
        seed=asked.random_seed,
    )
    return FimRequest(tier, asked.prompt, asked.suffix or "", wish)
