"""What an entry of the audit log says was changed, as people read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from gateway.console.formats import moment, money

SPENDING = "spend_per"
NO = "no"
TEXT_CHARS_MAX = 300


@dataclass(frozen=True, slots=True)
class Difference:
    """One field. `before` and `after` are empty where there was or is nothing."""

    field: str
    before: str
    after: str


def differences(
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    zone: str,
    names: Mapping[str, str] = MappingProxyType({}),
) -> list[Difference]:
    """Fields that differ, in the order of the entry; of what was made or ended all that say something. `names` of what
    is known by its id.
    """
    old, new = before or {}, after or {}
    found = []
    for name in dict.fromkeys([*old, *new]):
        was, becomes = (_text(name, kept.get(name), kept, zone) for kept in (old, new))
        if was != becomes and (before is not None or becomes != NO):
            found.append(Difference(_label(name), names.get(was, was), names.get(becomes, becomes)))
    return found


def _label(name: str) -> str:
    return name.removesuffix("_nano").removesuffix("_ms").replace("_", " ")


def _text(name: str, value: Any, record: Mapping[str, Any], zone: str) -> str:
    if isinstance(value, Mapping):
        return _limit(value, zone) if "kind" in value and "value" in value else _pairs(value, zone)
    if isinstance(value, list | tuple):
        return ", ".join(_text(name, each, record, zone) for each in value)[:TEXT_CHARS_MAX]
    if isinstance(value, bool):
        return "yes" if value else NO
    if isinstance(value, int):
        return _number(name, value, record, zone)
    return "" if value is None else str(value)[:TEXT_CHARS_MAX]


def _number(name: str, value: int, record: Mapping[str, Any], zone: str) -> str:
    if name.endswith("_nano") or (name == "value" and str(record.get("kind", "")).startswith(SPENDING)):
        return money(value)
    return moment(value, zone) if name.endswith("_ms") else str(value)


def _pairs(value: Mapping[str, Any], zone: str) -> str:
    return ", ".join(f"{_label(name)} {_text(name, each, value, zone)}" for name, each in value.items())


def _limit(value: Mapping[str, Any], zone: str) -> str:
    """Such as "requests per minute 60 (mistral-tiny, soft)"."""
    marks = [str(value.get("tier") or ""), "" if value.get("hard", True) else "soft"]
    said = ", ".join(mark for mark in marks if mark)
    told = f"{_label(str(value['kind']))} {_text('value', value['value'], value, zone)}"
    return f"{told} ({said})" if said else told
