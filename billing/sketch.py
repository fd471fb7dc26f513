"""Latency sketches: how many values fell into each of about 120 buckets that grow by a tenth.

Adding and merging commute, and equal values give equal bytes: a roll-up may be built in any order and any number of
steps. A quantile is told as the upper bound of its bucket: never below the true one, and above it by 10 % at most (by
1 ms below 11 ms). Values beyond the last bound count as it.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

import msgpack

VALUE_MS_MAX = 3_600_000


def _bounds_ms() -> tuple[int, ...]:
    """Upper bounds, inclusive: integers only, so that every machine has the same."""
    bounds = [0]
    while bounds[-1] < VALUE_MS_MAX:
        bounds.append(min(VALUE_MS_MAX, max(bounds[-1] + 1, bounds[-1] * 11 // 10)))
    return tuple(bounds)


BOUNDS_MS = _bounds_ms()


def bucket_of(value_ms: int) -> int:
    return min(bisect_left(BOUNDS_MS, value_ms), len(BOUNDS_MS) - 1)


def pack_sketch(counts: Mapping[int, int]) -> bytes:
    """A flat msgpack array: bucket, count, bucket, count ... in the order of buckets."""
    packed = msgpack.packb([number for bucket in sorted(counts) for number in (bucket, counts[bucket])])
    assert isinstance(packed, bytes)
    return packed


def unpack_sketch(raw: bytes) -> Counter[int]:
    flat = msgpack.unpackb(raw)
    return Counter(dict(zip(flat[::2], flat[1::2], strict=True)))


def add_sketch(counts: Counter[int], raw: bytes) -> None:
    """Merge a packed sketch, without making one of its own."""
    flat = msgpack.unpackb(raw)
    for place in range(0, len(flat), 2):
        counts[flat[place]] += flat[place + 1]


def quantile_ms(counts: Mapping[int, int], share: float) -> int | None:
    """The value that `share` (0 to 1) of all values do not exceed; None if there are none."""
    wanted = share * sum(counts.values())
    below = 0
    for bucket in sorted(counts):
        below += counts[bucket]
        if below >= wanted:
            return BOUNDS_MS[bucket]
    return None
