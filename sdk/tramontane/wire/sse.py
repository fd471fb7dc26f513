"""Server-sent events: bytes in, the data of whole events out."""

from __future__ import annotations

from typing import List

from tramontane.errors import UnexpectedAnswer

EVENT_BYTES_MAX = 16 * 1024 * 1024
BOM = b"\xef\xbb\xbf"


class EventDecoder:
    """Cuts may fall anywhere, inside a character or between CR and LF too. Comments and other fields are skipped."""

    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._lines = LineDecoder(event_bytes_max)
        self._data: List[bytes] = []
        self._held_bytes = 0
        self._begun = False

    def feed(self, raw: bytes) -> List[str]:
        """Raises UnexpectedAnswer for an event beyond the bound."""
        events = []
        for line in self._lines.feed(raw):
            first = line
            if not self._begun:
                self._begun = True
                first = line.removeprefix(BOM)
            if not first:
                if self._data:
                    events.append(b"\n".join(self._data).decode("utf-8", "replace"))
                self._data, self._held_bytes = [], 0
            elif first.startswith(b"data:"):
                value = first[len(b"data:") :]
                self._data.append(value[1:] if value.startswith(b" ") else value)
                self._held_bytes += len(value)
                check_bound(self._held_bytes, self._event_bytes_max)
        return events


class LineDecoder:
    """Lines without their ends: LF, CR LF or CR."""

    def __init__(self, line_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._line_bytes_max = line_bytes_max
        self._rest: List[bytes] = []
        self._rest_bytes = 0
        self._after_cr = False

    def feed(self, raw: bytes) -> List[bytes]:
        """Raises UnexpectedAnswer for a line beyond the bound."""
        if not raw:
            return []
        if self._after_cr and raw.startswith(b"\n"):
            raw = raw[1:]
            if not raw:
                self._after_cr = False
                return []
        self._after_cr = raw.endswith(b"\r")
        *whole, rest = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if whole:
            whole[0] = b"".join((*self._rest, whole[0]))
            self._rest, self._rest_bytes = [], 0
        self._rest.append(rest)
        self._rest_bytes += len(rest)
        check_bound(self._rest_bytes, self._line_bytes_max)
        return whole

    def end(self) -> bytes:
        """What came after the last line's end."""
        return b"".join(self._rest)


def check_bound(held_bytes: int, bytes_max: int) -> None:
    if held_bytes > bytes_max:
        raise UnexpectedAnswer(f"a part of the answer is larger than {bytes_max} bytes")
