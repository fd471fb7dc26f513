"""Requests per second and per minute: an exact log of what was admitted. The same as scripts/windows.lua."""

from bisect import bisect_left

SLOTS = 1_000
DEAD_SPARE = 64


class RequestLog:
    """One entry for each slot of a thousandth of the span in which anything was admitted: the slot, and how many
    requests there were up to it. Those of a slot count until its last millisecond has left the span.
    """

    def __init__(self, span_ms: int) -> None:
        self._span_ms = span_ms
        self._slot_ms = span_ms // SLOTS
        self._slots: list[int] = []
        self._totals: list[int] = []

    def used(self, now_ms: int) -> int:
        return self._totals[-1] - self._before(now_ms) if self._totals else 0

    def add(self, now_ms: int) -> None:
        """Time never runs backwards in it."""
        slot = now_ms // self._slot_ms
        if self._slots and slot <= self._slots[-1]:
            self._totals[-1] += 1
            return
        dead = self._first(now_ms)
        if dead > len(self._slots) - dead + DEAD_SPARE:
            del self._slots[: dead - 1], self._totals[: dead - 1]  # the last one tells what was before
        self._slots.append(slot)
        self._totals.append(1 + (self._totals[-1] if self._totals else 0))

    def retry_after_ms(self, limit: int, now_ms: int) -> int | None:
        """When enough of the oldest have left for one more, where none fits now; None: no time cures it."""
        if limit < 1:
            return None
        leaving = bisect_left(self._totals, self._totals[-1] + 1 - limit, self._first(now_ms))
        return self._leaves_in_ms(self._slots[leaving], now_ms)

    def reset_ms(self, now_ms: int) -> int:
        return self._leaves_in_ms(self._slots[-1], now_ms) if self.used(now_ms) else 0

    def _first(self, now_ms: int) -> int:
        """Index of the oldest entry that still counts."""
        return bisect_left(self._slots, (now_ms - self._span_ms + 1) // self._slot_ms)

    def _before(self, now_ms: int) -> int:
        first = self._first(now_ms)
        return self._totals[first - 1] if first else 0

    def _leaves_in_ms(self, slot: int, now_ms: int) -> int:
        return (slot + 1) * self._slot_ms + self._span_ms - 1 - now_ms
