"""Writes of one turn leave together; what is too much leaves at once; nothing is written to what is closing."""

import asyncio

from core.gathering import BYTES_MAX, Gathering


class Recorded(asyncio.WriteTransport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closing


async def test_what_is_written_in_one_turn_leaves_in_one_piece():
    transport = Recorded()
    outgoing = Gathering(transport)
    for part in (b"head", b"", b"body"):
        outgoing.write(part)
    assert transport.written == []
    await asyncio.sleep(0)
    outgoing.write(b"next")
    await asyncio.sleep(0)
    assert transport.written == [b"headbody", b"next"]


async def test_much_leaves_at_once_and_in_order():
    transport = Recorded()
    outgoing = Gathering(transport)
    outgoing.write(b"first")
    outgoing.write(b"x" * BYTES_MAX)
    assert transport.written == [b"first" + b"x" * BYTES_MAX]
    outgoing.write(b"last")
    outgoing.flush()
    await asyncio.sleep(0)
    assert transport.written[1:] == [b"last"]


async def test_nothing_is_written_to_a_transport_that_closes():
    transport = Recorded()
    outgoing = Gathering(transport)
    outgoing.write(b"too late")
    transport.closing = True
    await asyncio.sleep(0)
    assert transport.written == []
