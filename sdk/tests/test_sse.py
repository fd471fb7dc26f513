import pytest

from tramontane.errors import UnexpectedAnswer
from tramontane.wire.sse import EventDecoder, LineDecoder

STREAM = (
    "\ufeff: a comment\r\n\r\n"
    "data: one\n\n"
    "event: x\rdata:two\rid: 7\r\r"
    'data: {"é": 1}\r\n\r\n'
    "data: first\ndata:  second\n\n"
    "data:\n\n"
    "data: [DONE]\n\n"
    "data: never ended"
).encode()
EVENTS = ["one", "two", '{"é": 1}', "first\n second", "", "[DONE]"]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1_000])
def test_cuts_may_fall_anywhere(size):
    decoder = EventDecoder()
    found = []
    for start in range(0, len(STREAM), size):
        found += decoder.feed(STREAM[start : start + size])
    assert found == EVENTS


def test_every_cut_in_two():
    for cut in range(len(STREAM) + 1):
        decoder = EventDecoder()
        assert decoder.feed(STREAM[:cut]) + decoder.feed(STREAM[cut:]) == EVENTS


def test_nothing_grows_without_bound():
    with pytest.raises(UnexpectedAnswer):
        EventDecoder(10).feed(b"data: " + b"x" * 11)
    with pytest.raises(UnexpectedAnswer):
        EventDecoder(10).feed(b"data: xxxx\n" * 3)
    decoder = EventDecoder(10)
    for _ in range(3):
        assert decoder.feed(b"data: xxxx\n\n") == ["xxxx"]


def test_lines():
    decoder = LineDecoder()
    assert decoder.feed(b"a\r") == [b"a"]
    assert decoder.feed(b"\n") == []
    assert decoder.feed(b"") == []
    assert decoder.feed(b"b") == []
    assert decoder.feed(b"c\nd") == [b"bc"]
    assert decoder.end() == b"d"
