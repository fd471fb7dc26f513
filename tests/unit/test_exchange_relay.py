"""A stream's bytes, with a clock and a reply that a test moves by hand."""

from types import SimpleNamespace

from core.clock import ManualClock
from core.wire import Usage
from gateway.metrics import GatewayMetrics
from gateway.middleware import Call
from gateway.replies import Delta, Finished
from gateway.routes.metered import Exchanged
from gateway.routes.relay import Relay

REQUEST_ID = "c0" + "0" * 30
CALL = ("[TOOL_CALLS]", ' [{"name": "sky", ', '"arguments": {}}]')


class SlowReply:
    """So long passes before each piece of text."""

    request_id = REQUEST_ID
    admitted = None

    def __init__(self, texts, clock, pause_ms):
        self.texts, self.clock, self.pause_ms = texts, clock, pause_ms
        self.counted = 0

    async def events(self):
        for text in self.texts:
            self.clock.advance(self.pause_ms)
            yield Delta(0, text, 1)
        yield Finished(("stop",), Usage(1, len(self.texts)))

    def delivered(self, _choice, token_count):
        self.counted += token_count

    def leave(self):
        raise AssertionError("nobody leaves")


async def sent(texts, pause_ms, **options):
    clock = ManualClock()
    reply = SlowReply(texts, clock, pause_ms)
    parts = []

    async def send(message):
        parts.append(message)

    connection = SimpleNamespace(when_lost=lambda _call: None)
    relay = Relay("tiny", "tiny", 1, clock, GatewayMetrics(None), **options)
    await relay.stream(Exchanged(reply, Call(REQUEST_ID, 0.0), 0.0, connection, send))
    return parts, reply


async def test_a_long_call_that_is_held_keeps_the_connection_alive():
    parts, reply = await sent(CALL, 6_000, has_tools=True)
    bodies = [part["body"] for part in parts[1:]]
    assert bodies[0] == b": working\n\n"
    assert b'"tool_calls"' in bodies[1]
    assert len(bodies) == 2
    assert reply.counted == 0


async def test_a_short_one_is_told_in_one_go():
    parts, _ = await sent(CALL, 1_000, has_tools=True)
    assert [part["type"] for part in parts] == ["http.response.start", "http.response.body"]


async def test_without_tools_nothing_is_held():
    parts, reply = await sent(CALL, 0)
    assert len(parts) == 1 + len(CALL) + 1
    assert reply.counted == len(CALL)
