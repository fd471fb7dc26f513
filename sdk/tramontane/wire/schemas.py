"""From Python's types to JSON schemas that a grammar can follow, and from what a model wrote back to values."""

from __future__ import annotations

import enum
import inspect
import types
from typing import Any, Callable, Dict, List, Literal, Tuple, Union, get_args, get_origin, get_type_hints

PLAIN: Dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
UNIONS = frozenset({Union, getattr(types, "UnionType", Union)})  # int | str is a type of its own since Python 3.10
SKIPPED_KINDS = frozenset({inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD})


def parameters_of(function: Callable[..., Any]) -> Dict[str, Any]:
    """The schema of a function's arguments. Raises TypeError for an argument whose type has none."""
    hints = get_type_hints(function)
    properties: Dict[str, Any] = {}
    required: List[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in SKIPPED_KINDS or parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise TypeError(f"argument {name!r} cannot be named by a model: a tool takes plain named arguments")
        if name not in hints:
            raise TypeError(f"argument {name!r} has no type")
        properties[name] = schema_of(hints[name])
        if parameter.default is inspect.Parameter.empty:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def arguments_of(function: Callable[..., Any], given: Any) -> Dict[str, Any]:
    """What a model wrote, as the function's own types. Raises TypeError, ValueError or KeyError if it does not fit."""
    if not isinstance(given, dict):
        raise TypeError("the arguments are no object")
    inspect.signature(function).bind(**given)
    hints = get_type_hints(function)
    return {name: value_of(hints[name], value) for name, value in given.items()}


def schema_of(kind: Any) -> Dict[str, Any]:
    """Raises TypeError for a type that JSON cannot say."""
    if get_origin(kind) is not None:
        return _schema_of_parts(kind, get_origin(kind), get_args(kind))
    if kind in PLAIN:
        return {"type": PLAIN[kind]}
    if hasattr(kind, "model_json_schema"):
        return dict(strict(kind.model_json_schema()))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"enum": [member.value for member in kind]}
    raise _no_schema(kind)


def value_of(kind: Any, value: Any) -> Any:
    """Raises TypeError or ValueError if it does not fit."""
    if get_origin(kind) is not None:
        return _value_of_parts(get_origin(kind), get_args(kind), value)
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    if kind is float and type(value) is int:
        return float(value)
    return _checked(kind, value)


def _schema_of_parts(kind: Any, origin: Any, parts: Tuple[Any, ...]) -> Dict[str, Any]:
    if origin is Literal:
        return {"enum": list(parts)}
    if origin in UNIONS:
        return {"anyOf": [schema_of(part) for part in parts]}
    if origin is list:
        return {"type": "array", "items": schema_of(parts[0])}
    if origin is dict and parts[0] is str:
        return {"type": "object", "additionalProperties": schema_of(parts[1])}
    raise _no_schema(kind)


def _value_of_parts(origin: Any, parts: Tuple[Any, ...], value: Any) -> Any:
    if origin in UNIONS:
        return _first_that_fits(parts, value)
    if origin is list:
        return [value_of(parts[0], item) for item in _checked(list, value)]
    if origin is dict:
        return {name: value_of(parts[1], item) for name, item in _checked(dict, value).items()}
    if value not in parts:
        raise ValueError(f"{value!r} is none of {parts!r}")
    return value


def _no_schema(kind: Any) -> TypeError:
    return TypeError(
        f"{kind!r} has no JSON schema: use str, int, float, bool, list, dict, Literal, Enum, pydantic models"
    )


def strict(schema: Any) -> Any:
    """The same with objects that have all their properties and no others: what a grammar follows best. A schema that
    pydantic made has `$defs`; titles and defaults say nothing to a grammar.
    """
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: part for name, part in schema.items() if not (name == "title" and isinstance(part, str))}
    made = {
        name: {inner: strict(part) for inner, part in value.items()}
        if name in {"properties", "$defs"}
        else strict(value)
        for name, value in kept.items()
        if name != "default"
    }
    if "properties" in made:
        made["required"] = list(made["properties"])
        made["additionalProperties"] = False
    return made


def _first_that_fits(parts: Tuple[Any, ...], value: Any) -> Any:
    for part in parts:
        try:
            return value_of(part, value)
        except (TypeError, ValueError):
            continue
    raise ValueError(f"{value!r} is none of {parts!r}")


def _checked(kind: Any, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
