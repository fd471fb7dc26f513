"""What a request costs: integers only, one division. scripts/shared.lua has the same; both run vectors.json."""

TOKENS_PER_PRICE = 1_000


def cost_nano(
    prompt_tokens: int,
    cached_tokens: int,
    completion_tokens: int,
    *,
    input_nano: int,
    cached_nano: int,
    output_nano: int,
) -> int:
    """Nano-units for one request; prices are nano-units per 1 000 tokens, and `cached_tokens` is a part of
    `prompt_tokens`. The exact sum over the token classes is divided once, half to even.
    """
    exact = (prompt_tokens - cached_tokens) * input_nano + cached_tokens * cached_nano + completion_tokens * output_nano
    whole, rest = divmod(exact, TOKENS_PER_PRICE)
    half = TOKENS_PER_PRICE // 2
    rounds_up = rest > half or (rest == half and whole % 2 == 1)
    return whole + 1 if rounds_up else whole
