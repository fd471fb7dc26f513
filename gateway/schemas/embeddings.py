"""The body of POST /v1/embeddings."""

from typing import Annotated, Literal

from pydantic import Field

from core.catalog import Tier
from core.errors import INVALID_ARGUMENTS, PlatformError
from gateway.schemas.fields import IGNORED, INTEGER_MAX, JsonObject, ModelName
from gateway.schemas.parsing import Strict

TEXTS_READ_MAX = 100_000


class EmbeddingRequest(Strict):
    model: ModelName
    input: str | Annotated[tuple[str, ...], Field(min_length=1, max_length=TEXTS_READ_MAX, fail_fast=True)] = Field(
        description="One text, or up to 256."
    )
    encoding_format: Literal["float", "base64"] = "float"
    output_dimension: Annotated[int, Field(gt=0, le=INTEGER_MAX)] | None = Field(
        default=None, description="Only the tier's own number of dimensions."
    )
    output_dtype: Literal["float", "int8", "uint8", "binary", "ubinary"] = Field(
        default="float", description="This release serves float."
    )
    metadata: JsonObject | None = Field(default=None, description=IGNORED)

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.input,) if isinstance(self.input, str) else self.input


def refuse_unserved(request: EmbeddingRequest, tier: Tier) -> None:
    """Raises PlatformError for what this tier cannot make."""
    if request.output_dtype != "float":
        message = f"output_dtype {request.output_dtype} is not enabled for this model"
        raise PlatformError(INVALID_ARGUMENTS, message, param="output_dtype")
    if request.output_dimension not in (None, tier.dimensions):
        message = f"output_dimension must be {tier.dimensions} for this model"
        raise PlatformError(INVALID_ARGUMENTS, message, param="output_dimension")
