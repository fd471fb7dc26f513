"""Types of fields that several bodies share."""

import math
from typing import Annotated

from pydantic import AfterValidator, Field, JsonValue

INTEGER_MAX = 2**31 - 1
SEED_MAX = 2**63 - 1
STOPS_MAX = 16
STOP_CHARS_MAX = 1_024
MODEL_CHARS_MAX = 256
IGNORED = "Accepted and not used."


def _all_finite(value: JsonValue) -> JsonValue:
    """NaN and Infinity are not JSON, though the parser knows them."""
    waiting: list[JsonValue] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, float) and not math.isfinite(item):
            raise ValueError("NaN and Infinity are not JSON")
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return value


JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_all_finite)]
ModelName = Annotated[str, Field(min_length=1, max_length=MODEL_CHARS_MAX, description="A tier or one of its aliases.")]
Temperature = Annotated[float, Field(ge=0, le=1.5)]
TopP = Annotated[float, Field(gt=0, le=1)]
TokenCount = Annotated[int, Field(ge=0, le=INTEGER_MAX)]
Seed = Annotated[int, Field(ge=0, le=SEED_MAX)]
CacheKey = Annotated[str, Field(max_length=1_024)]
StopText = Annotated[str, Field(min_length=1, max_length=STOP_CHARS_MAX)]
Stops = StopText | Annotated[tuple[StopText, ...], Field(max_length=STOPS_MAX)]


def stop_texts(stop: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else stop
