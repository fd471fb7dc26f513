"""What is written to a connection in one turn of the event loop leaves together: one system call, one packet.

uvloop's transports hand every write to the kernel at once, which costs more than most of what is written.
"""

import asyncio

BYTES_MAX = 16_384


class Gathering:
    """More than BYTES_MAX leaves at once, so that the transport notices a reader that is too slow."""

    __slots__ = ("_bytes", "_loop", "_parts", "_transport")

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes | bytearray | memoryview] = []
        self._bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        self._bytes += len(data)
        if self._bytes > BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Now; where nothing waits, nothing happens."""
        parts, self._parts, self._bytes = self._parts, [], 0
        if parts and not self._transport.is_closing():
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))
