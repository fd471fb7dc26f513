"""From the bytes of a body to a typed request, or a 422 that names each field."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import VALIDATION, PlatformError

DETAILS_MAX = 20
LOC_PART_CHARS_MAX = 100
MESSAGE_CHARS_MAX = 500


class Strict(BaseModel):
    """Unknown fields, wrong types and numbers that are none are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, regex_engine="rust-regex")


Parsed = TypeVar("Parsed", bound=BaseModel)


def parse(model: type[Parsed], body: bytes) -> Parsed:
    """One pass over the bytes. Raises PlatformError(VALIDATION)."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise PlatformError(VALIDATION, "The body is not valid.", details=details(error)) from None


def details(error: ValidationError) -> tuple[dict[str, Any], ...]:
    """Entries of type, loc and msg. The input is left out: it may be large or private; each text is cut, for the
    names of unknown fields come from the caller.
    """
    if error.error_count() > DETAILS_MAX:
        message = f"{error.error_count()} fields are wrong"
        return ({"type": "too_many_errors", "loc": ["body"], "msg": message},)
    return tuple(
        {
            "type": entry["type"],
            "loc": ["body", *(_cut(part) for part in entry["loc"])],
            "msg": entry["msg"][:MESSAGE_CHARS_MAX],
        }
        for entry in error.errors(include_url=False, include_context=False, include_input=False)
    )


def _cut(part: int | str) -> int | str:
    return part if isinstance(part, int) else part[:LOC_PART_CHARS_MAX]
