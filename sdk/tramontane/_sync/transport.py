"""Sends requests and reads answers; what to do about failures is decided in `wire`."""

from __future__ import annotations

from typing import Any, Iterator, TypeVar

import httpx

from tramontane._http import ANSWER_BYTES_MAX, BearerAuth, failure_from, headers_of, pause_within, timeout_of
from tramontane.errors import TramontaneError
from tramontane.timing import Timing
from tramontane.wire.calls import SUCCESS, Call, prepare, read_answer, read_line, with_key
from tramontane.wire.config import Config
from tramontane.wire.failures import failure_of
from tramontane.wire.sse import LineDecoder, check_bound
from tramontane.wire.tries import Tries

Result = TypeVar("Result")


class Body:
    """An answer whose headers are there."""

    def __init__(self, response: httpx.Response, tries: Tries, timing: Timing) -> None:
        self.status = response.status_code
        self.headers = headers_of(response)
        self.ends_s = tries.ends_s
        self._response = response
        self._tries = tries
        self._timing = timing
        self._pieces = response.iter_bytes()
        pause_within(response, tries.silence_s(timing.now_s()))

    def read(self) -> bytes:
        """What comes next; nothing at the end. Raises TramontaneError."""
        failure: TramontaneError
        try:
            raw = self._pieces.__next__()
        except StopIteration:
            return b""
        except httpx.ReadTimeout:
            failure = self._tries.no_more()
        except httpx.RequestError as error:
            failure = failure_from(error)
        else:
            self._tries.left_s(self._timing.now_s())
            return raw
        raise failure

    def whole(self) -> bytes:
        """All of it, and the connection is free again. Raises TramontaneError."""
        parts, size_bytes = [], 0
        try:
            while raw := self.read():
                parts.append(raw)
                size_bytes += len(raw)
                check_bound(size_bytes, ANSWER_BYTES_MAX)
        finally:
            self.close()
        return b"".join(parts)

    def close(self) -> None:
        """Before the end: the platform stops working on the answer."""
        self._response.close()


class Transport:
    def __init__(self, config: Config, http: httpx.Client, timing: Timing, *, owns_http: bool) -> None:
        self.config = config
        self.timing = timing
        self._http = http
        self._auth = BearerAuth(config.api_key)
        self._owns_http = owns_http

    def with_config(self, config: Config) -> Transport:
        """Over the same connections, which stay this one's to close."""
        return Transport(config, self._http, self.timing, owns_http=False)

    def run(self, call: Call[Result]) -> Result:
        """The answer. Raises TramontaneError."""
        call = with_key(call, self.timing.new_key())
        tries = self._tries(call)
        while True:
            try:
                body = self._send(call, tries, streams=False)
                return read_answer(call, body.status, body.headers, body.whole())
            except TramontaneError as error:
                self._wait(error, tries)

    def open(self, call: Call[Any]) -> Body:
        """An answer that is read as it comes; the caller closes it. Raises TramontaneError."""
        call = with_key(call, self.timing.new_key())
        tries = self._tries(call)
        while True:
            try:
                return self._send(call, tries, streams=True)
            except TramontaneError as error:
                self._wait(error, tries)

    def lines(self, call: Call[Result]) -> Iterator[Result]:
        """One result for each line. Raises TramontaneError."""
        body = self.open(call)
        decoder = LineDecoder()
        try:
            while raw := body.read():
                for line in filter(None, decoder.feed(raw)):
                    yield read_line(call, line)
            if decoder.end():
                yield read_line(call, decoder.end())
        finally:
            body.close()

    def close(self) -> None:
        if self._owns_http:
            self._http.close()

    def _tries(self, call: Call[Any]) -> Tries:
        config = self.config
        return Tries(config.timeouts, config.retries, self.timing.now_s(), repeatable=call.repeatable)

    def _send(self, call: Call[Any], tries: Tries, *, streams: bool) -> Body:
        """One try: an answer whose status is good, its body not yet read."""
        limits = tries.begin(self.timing.now_s(), streams=streams)
        prepared = prepare(call, self.config)
        request = self._http.build_request(
            prepared.method,
            prepared.url,
            params=call.query or None,
            headers=prepared.headers,
            content=prepared.content,
            timeout=timeout_of(limits),
        )
        failure: TramontaneError
        try:
            response = self._http.send(request, auth=self._auth, stream=True, follow_redirects=False)
        except httpx.ReadTimeout:
            failure = tries.no_answer()
        except httpx.RequestError as error:
            failure = failure_from(error)
        else:
            body = Body(response, tries, self.timing)
            if body.status in SUCCESS:
                return body
            failure = failure_of(body.status, body.headers, body.whole(), self.timing.wall_s())
        raise failure

    def _wait(self, failure: TramontaneError, tries: Tries) -> None:
        """Until the next try. Raises the failure if there is none."""
        wait_s = tries.wait_s(failure, self.timing.now_s(), self.timing.chance())
        if wait_s is None:
            raise failure
        self.timing.sleep(wait_s)
