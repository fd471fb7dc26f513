"""Requests of the admin API: paths, bodies, and what may be sent twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Type, TypeVar

from tramontane.wire.calls import Call, nothing, query, reader, segment
from tramontane.wire.decode import Answer, decode

Made = TypeVar("Made", bound=Answer)
ROOT = "/v1/admin"


@dataclass(frozen=True)
class Desk:
    """Of one organisation: the key's own (None), or the one that an operator's key names."""

    organisation: Optional[str] = None

    def get(self, path: str, wanted: Type[Made], **asked: Any) -> Call[Made]:
        return self._call("GET", path, reader(wanted), asked)

    def listed(self, path: str, wanted: Type[Made], **asked: Any) -> Call[List[Made]]:
        """The `data` of an answer."""
        return self._call("GET", path, lambda body: _entries(wanted, body), asked)

    def create(self, path: str, wanted: Type[Made], body: Mapping[str, Any]) -> Call[Made]:
        """Not repeatable: the second would be refused, or made too."""
        return self._call("POST", path, reader(wanted), {}, body, repeatable=False)

    def create_once(self, path: str, wanted: Type[Made], body: Mapping[str, Any], key: Optional[str]) -> Call[Made]:
        """The platform does it once for each Idempotency-Key."""
        return self._call("POST", path, reader(wanted), {}, body, key=key)

    def post(self, path: str, wanted: Type[Made], body: Optional[Mapping[str, Any]] = None) -> Call[Made]:
        """What changes nothing when it is done again."""
        return self._call("POST", path, reader(wanted), {}, body)

    def put(self, path: str, wanted: Type[Made], body: Mapping[str, Any]) -> Call[Made]:
        return self._call("PUT", path, reader(wanted), {}, body)

    def patch(self, path: str, wanted: Type[Made], body: Mapping[str, Any]) -> Call[Made]:
        return self._call("PATCH", path, reader(wanted), {}, body)

    def delete(self, path: str, *, repeatable: bool = False) -> Call[None]:
        """What is gone may not be found a second time."""
        return self._call("DELETE", path, nothing, {}, repeatable=repeatable)

    def remove(self, path: str, wanted: Type[Made], **asked: Any) -> Call[Made]:
        """A deletion that tells something."""
        return self._call("DELETE", path, reader(wanted), asked, repeatable=False)

    def _call(
        self,
        method: str,
        path: str,
        read: Callable[[Any], Any],
        asked: Dict[str, Any],
        body: Optional[Mapping[str, Any]] = None,
        *,
        repeatable: bool = True,
        key: Optional[str] = None,
    ) -> Call[Any]:
        return Call(
            method,
            ROOT + path,
            read,
            query=query(organisation=self.organisation, **asked),
            body=body,
            keyed=method != "GET",
            repeatable=repeatable,
            idempotency_key=key,
        )


def place(path: str, *ids: str) -> str:
    """The path with each id in the place of a `*`."""
    for each in ids:
        path = path.replace("*", segment(each), 1)
    return path


def _entries(wanted: Type[Made], body: Any) -> List[Made]:
    return decode(_Page, body).of(wanted)


@dataclass(frozen=True)
class _Page(Answer):
    data: List[Any]

    def of(self, wanted: Type[Made]) -> List[Made]:
        return [decode(wanted, entry, f"data[{index}]") for index, entry in enumerate(self.data)]
