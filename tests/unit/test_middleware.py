import json

import pytest
import structlog
from structlog.testing import CapturingLogger

from core.clock import ManualClock
from core.errors import BODY_TOO_LARGE, UNSUPPORTED_MEDIA, PlatformError
from core.ids import CountingIds
from gateway.metrics import GatewayMetrics
from gateway.middleware import BoundedBody, Edge, call_of, read_json
from gateway.replies import ClientLeft

BYTES_MAX = 10
FIRST_ID = "c0" + "0" * 29 + "1"


def scope(method="POST", **headers):
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": "/x", "headers": raw}


def arriving(*messages):
    left = list(messages)

    async def receive():
        if not left:
            return {"type": "http.disconnect"}
        return left.pop(0)

    return receive


def part(body, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


class Answer:
    def __init__(self):
        self.messages = []

    async def __call__(self, message):
        self.messages.append(message)

    @property
    def status(self):
        return self.messages[0]["status"]

    @property
    def headers(self):
        return dict(self.messages[0]["headers"])

    @property
    def body(self):
        return json.loads(self.messages[1]["body"])


def edge(app):
    logger = CapturingLogger()
    log = structlog.wrap_logger(logger, processors=[], wrapper_class=structlog.stdlib.BoundLogger)
    metrics = GatewayMetrics(None)
    built = Edge(
        app, cell="c0", clock=ManualClock(), ids=CountingIds(), body_bytes_max=BYTES_MAX, metrics=metrics, log=log
    )
    return built, logger, metrics


async def test_every_answer_carries_the_request_id():
    async def app(scope, receive, send):
        call_of(scope).request_id = "the-jobs-own"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})

    answer = Answer()
    await edge(app)[0](scope("GET"), arriving(), answer)
    assert answer.headers == {
        b"a": b"b",
        b"mistral-correlation-id": b"the-jobs-own",
        b"x-kong-request-id": b"the-jobs-own",
        b"x-content-type-options": b"nosniff",
    }


async def test_a_defect_is_logged_once_and_not_shown():
    async def app(scope, receive, send):
        raise ZeroDivisionError("secret")

    built, logger, metrics = edge(app)
    answer = Answer()
    await built(scope("GET"), arriving(), answer)
    assert answer.status == 500
    assert answer.body["code"] == "3600"
    assert "secret" not in json.dumps(answer.body)
    [call] = logger.calls
    assert (call.method_name, call.kwargs["request_id"]) == ("exception", FIRST_ID)
    assert b'status="500"' in metrics.render(None)


async def test_nothing_is_added_to_an_answer_that_has_begun():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise PlatformError(BODY_TOO_LARGE, "late")

    answer = Answer()
    await edge(app)[0](scope("GET"), arriving(), answer)
    assert [message["type"] for message in answer.messages] == ["http.response.start"]


async def test_nobody_is_told_when_the_caller_has_left():
    async def app(scope, receive, send):
        raise ClientLeft

    built, logger, metrics = edge(app)
    answer = Answer()
    await built(scope(), arriving(), answer)
    assert (answer.messages, logger.calls) == ([], [])
    assert b'tramontane_clients_left_total{route="other"} 1.0' in metrics.render(None)


async def test_head_is_a_get_for_the_routes():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"seen", scope["method"].encode())]})

    answer = Answer()
    await edge(app)[0](scope("HEAD"), arriving(), answer)
    assert answer.headers[b"seen"] == b"GET"


@pytest.mark.parametrize("declared", ["11", "9" * 30, "-1", "1e3"])
async def test_a_declared_length_is_refused_before_anything_is_read(declared):
    async def app(scope, receive, send):
        raise AssertionError("not reached")

    answer = Answer()
    await edge(app)[0](scope(content_length=declared), arriving(part(b"x")), answer)
    assert answer.status == 413


async def test_an_undeclared_length_is_counted():
    receive = BoundedBody(scope(), arriving(part(b"12345", more=True), part(b"678901")), BYTES_MAX)
    with pytest.raises(PlatformError) as caught:
        await read_json(scope(), receive)
    assert caught.value.kind == BODY_TOO_LARGE


async def test_a_body_of_just_the_bound_passes_and_what_follows_is_passed_on():
    receive = BoundedBody(scope(), arriving(part(b"12345", more=True), part(b"67890")), BYTES_MAX)
    assert await read_json(scope(), receive) == b"1234567890"
    assert await receive() == {"type": "http.disconnect"}


@pytest.mark.parametrize("headers", [{"content_type": "text/plain"}, {"content_encoding": "gzip"}])
async def test_only_plain_json_is_read(headers):
    with pytest.raises(PlatformError) as caught:
        await read_json(scope(**headers), arriving(part(b"{}")))
    assert caught.value.kind == UNSUPPORTED_MEDIA


@pytest.mark.parametrize("headers", [{}, {"content_type": "application/json; charset=utf-8"}, {"content_type": ""}])
async def test_json_may_say_so_or_say_nothing(headers):
    assert await read_json(scope(**headers), arriving(part(b"{}"))) == b"{}"


async def test_a_caller_that_leaves_in_its_body():
    with pytest.raises(ClientLeft):
        await read_json(scope(), arriving(part(b"{", more=True)))
