"""Answers in a form of the caller's own: a pydantic model's schema out, an instance of it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Generic, Type, TypeVar

from tramontane.errors import NotParsed
from tramontane.types import ChatCompletion
from tramontane.wire.schemas import strict

Form = TypeVar("Form")
NAME_CHARS_MAX = 64


@dataclass(frozen=True)
class Parsed(Generic[Form]):
    """`parsed` is the answer, `completion` how it came."""

    parsed: Form
    completion: ChatCompletion


def format_of(form: Type[Any]) -> Dict[str, Any]:
    """`response_format` for a pydantic model. Raises TypeError for anything else."""
    if not hasattr(form, "model_json_schema"):
        raise TypeError("response_format is a pydantic model (version 2)")
    name = "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in form.__name__)
    schema = {"name": name[:NAME_CHARS_MAX], "schema": strict(form.model_json_schema()), "strict": True}
    return {"type": "json_schema", "json_schema": schema}


def parsed_of(form: Type[Form], completion: ChatCompletion) -> Parsed[Form]:
    """Raises NotParsed: the answer was cut off, or the model's own validators refuse it."""
    choice = completion.choices[0]
    if choice.finish_reason == "length":
        raise NotParsed("the answer was cut off before its end: max_tokens is too small for it", completion)
    validate: Any = getattr(form, "model_validate_json", None)
    try:
        made: Form = validate(choice.message.content or "")
    except ValueError as error:
        raise NotParsed(f"the answer is no {form.__name__}: {type(error).__name__}", completion) from error
    return Parsed(made, completion)
