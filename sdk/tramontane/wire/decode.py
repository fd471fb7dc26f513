"""From JSON to the frozen dataclasses that callers see, and back. Unknown fields are kept, wrong ones refused."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from types import MappingProxyType
from typing import Any, Dict, Mapping, Optional, Tuple, Type, TypeVar, Union, get_args, get_origin, get_type_hints

from tramontane.errors import UnexpectedAnswer

Made = TypeVar("Made", bound="Answer")
NOTHING: Mapping[str, Any] = MappingProxyType({})
WIRE_NAME = "wire"  # in a field's metadata: its name in JSON, if it has another


@dataclass(frozen=True)
class Meta:
    """What the headers of an answer say. `headers` has names in small letters."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    request_id: Optional[str] = None

    @property
    def cost_nano(self) -> Optional[int]:
        """The price of the request in nano-units of the currency; not known for streams."""
        return self._whole("x-tramontane-cost-nano")

    @property
    def queue_ms(self) -> Optional[int]:
        """The wait in the queue that admission expected."""
        return self._whole("x-tramontane-queue-ms")

    @property
    def price_version(self) -> Optional[str]:
        return self.headers.get("x-tramontane-price-version")

    @property
    def remaining_requests(self) -> Optional[int]:
        """In this minute."""
        return self._whole("x-ratelimit-remaining-req-minute")

    @property
    def remaining_tokens(self) -> Optional[int]:
        """In this minute."""
        return self._whole("x-ratelimit-remaining-tokens-minute")

    @property
    def ignored(self) -> Tuple[str, ...]:
        """Fields of the request that were accepted and did nothing."""
        return tuple(filter(None, self.headers.get("x-tramontane-ignored", "").split(",")))

    @property
    def replayed(self) -> bool:
        """The answer of an earlier try with the same Idempotency-Key: it cost nothing more."""
        return self.headers.get("idempotent-replayed") == "true"

    def _whole(self, name: str) -> Optional[int]:
        said = self.headers.get(name, "")
        return int(said) if said.isascii() and said.isdigit() else None


NO_META = Meta(0, MappingProxyType({}))


class Answer:
    """What the platform answered. `extra` holds the fields that this release does not know; `meta` what the headers
    said; of a part of an answer, nothing.
    """

    @property
    def extra(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.__dict__.get("_extra", NOTHING)
        return found

    @property
    def meta(self) -> Meta:
        found: Meta = self.__dict__.get("_meta", NO_META)
        return found


def decode(wanted: Type[Made], value: Any, where: str = "") -> Made:
    """Raises UnexpectedAnswer, naming the place and never the content."""
    if not isinstance(value, dict):
        raise _wrong(where, wanted)
    known: Dict[str, Any] = {}
    kind_of: Any = wanted
    names = set()
    for name, wire, kind, needed in _fields(kind_of):
        names.add(wire)
        if wire in value:
            known[name] = _value(kind, value[wire], f"{where}.{wire}" if where else wire)
        elif needed:
            raise _wrong(f"{where}.{wire}" if where else wire, kind)
    made = wanted(**known)
    extra = {name: found for name, found in value.items() if name not in names}
    if extra:
        object.__setattr__(made, "_extra", MappingProxyType(extra))
    return made


def with_meta(made: Made, meta: Meta) -> Made:
    object.__setattr__(made, "_meta", meta)
    return made


@cache
def _fields(wanted: Type[Any]) -> Tuple[Tuple[str, str, Any, bool], ...]:
    """Name, name in JSON, type, and whether it must be there."""
    hints = get_type_hints(wanted)
    found = []
    for each in fields(wanted):
        kind = hints[each.name]
        needed = each.default is MISSING
        found.append((each.name, each.metadata.get(WIRE_NAME, each.name), kind, needed))
    return tuple(found)


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Union:  # Optional: no answer has any other
        return None if value is None else _value(parts[0], value, where)
    if origin is list:
        entries = enumerate(_checked(list, value, where))
        return [_value(parts[0], entry, f"{where}[{index}]") for index, entry in entries]
    if origin is dict:
        named = _checked(dict, value, where).items()
        return {name: _value(parts[1], entry, f"{where}.{name}") for name, entry in named}
    if isinstance(kind, type) and issubclass(kind, Answer):
        return decode(kind, value, where)
    return value if kind is Any else _checked(kind, value, where)


def _checked(kind: Any, value: Any, where: str) -> Any:
    """A whole number is a float too; true and false are no numbers."""
    if kind is float and type(value) is int:
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(where, kind)
    return value


def _wrong(where: str, kind: Any) -> UnexpectedAnswer:
    name = getattr(kind, "__name__", str(kind))
    return UnexpectedAnswer(f"the answer has no {name} at {where or 'its top'}")
