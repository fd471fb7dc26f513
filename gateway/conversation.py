"""One open request, from its admission to its end: what its worker says, what becomes of it when the worker is lost or
silent, and what is told to the queue when the client leaves.

Everything is decided in the task that reads `events`; the process's reader loop only drops events into the mailbox.
"""

import asyncio
from collections.abc import AsyncIterator

from core.errors import CAPACITY, ENGINE_FAILED, UNAUTHORIZED, UNAVAILABLE, ErrorKind, PlatformError
from core.queue.base import Admission, Admitted, Outcome, RequestState, Standing
from core.wire import Answer, End, Event, Piece, Usage
from gateway.desk import QUEUE_AWAY, Desk
from gateway.mailbox import Arrival, Mailbox
from gateway.replies import ClientLeft, Delta, Finished, Folded, Waiting
from gateway.vigil import Phase, Vigil

SLOW_READER = "slow_reader"
REVOKED = "revoked"
CLIENT_LEFT = "client left"


class Conversation:
    """Read `events` or `fold` once, and call `abandon` when the client is gone or whatever else goes wrong."""

    def __init__(self, admission: Admission, desk: Desk) -> None:
        job = admission.job
        self.request_id = job.request_id
        self.organisation = job.organisation
        self.key_id = admission.key_id
        self.generation = admission.generation
        self.expires_ms: int | None = None  # when its key ends by itself
        self._deadline_ms = job.deadline_ms
        self._streamed = job.streamed
        self._outlives_client = job.keep_answer and not job.streamed
        self._choices = 0 if job.sampling is None else job.sampling.n
        self._attempt = job.attempt
        self._desk = desk
        self._mailbox = Mailbox(desk.settings.text_chars_max)
        self._vigil = Vigil(desk.settings, desk.clock)
        self._admitted: Admitted | None = None
        self._end: End | None = None
        self._kept: End | None = None
        self._lost_attempt: int | None = None
        self._broken: str | None = None
        self._left: Finished | ClientLeft | PlatformError | None = None
        self._handed_out = False
        self._over = False
        self._restarts = 0
        self._delivered = 0
        self.due_s = self._vigil.due_s()

    @property
    def admitted(self) -> Admitted:
        assert self._admitted is not None, "set before anybody else sees the conversation"
        return self._admitted

    def begin(self, admitted: Admitted) -> None:
        self._admitted = admitted

    def accept(self, event: Event) -> bool:
        """Called for each event in order; never waits. False: the reader is hopelessly behind."""
        if event.attempt != self._attempt or self._over:
            return True
        if isinstance(event, Piece):
            if self._vigil.phase is not Phase.ANSWERING:
                self._vigil.enter(Phase.ANSWERING)
            self._vigil.heard()
            arrival = self._mailbox.put(event)
            if arrival is Arrival.GAP:
                self._broken = "A part of the answer was lost on its way; nothing was charged."
                self._mailbox.ring()
            return arrival is not Arrival.FULL
        if isinstance(event, End):
            self._end = event
        else:
            self._lost_attempt = event.attempt
        self._mailbox.ring()
        return True

    def ring(self) -> None:
        """`due_s` has passed: look after the request."""
        self._mailbox.ring()

    async def events(self) -> AsyncIterator[Delta | Waiting | Finished]:
        """Ends with Finished, or silently after `abandon`. As long as no text was handed out an error is raised, as
        PlatformError; later it is a Finished.
        """
        while True:
            await self._mailbox.wait()
            said = await self._decide()
            if isinstance(self._left, ClientLeft):
                return
            end = self._end  # read before the text is taken: all that came before it is in the mailbox
            if not isinstance(said, Finished):
                for delta in self._mailbox.take():
                    self._handed_out = self._streamed
                    self._vigil.told()
                    yield delta
                if end is not None:
                    said = self._finish(end)
            if said is not None:
                yield said
            if isinstance(said, Finished):
                return

    async def fold(self) -> Folded:
        """The whole answer, from the very same events; until the end a lost worker only means to begin anew. Raises
        PlatformError, or ClientLeft after `abandon`.
        """
        deltas: list[list[Delta]] = [[] for _ in range(self._choices)]
        restarts = 0
        async for event in self.events():
            if self._restarts != restarts:
                restarts = self._restarts
                deltas = [[] for _ in range(self._choices)]
            if isinstance(event, Delta):
                deltas[event.choice].append(event)
            elif isinstance(event, Finished):
                return Folded(
                    tuple([_joined(parts) for parts in deltas]),
                    event.finish_reasons,
                    event.usage,
                    event.cost_nano,
                    event.vectors,
                    event.ended_by,
                )
        raise ClientLeft

    def delivered(self, choice: int, token_count: int) -> None:
        """The server's send has accepted a delta: what a cancel bills at most is counted from here."""
        assert 0 <= choice < self._choices
        self._delivered += token_count

    async def abandon(self) -> None:
        """The client has left: stop the request, end `events`. Does nothing after the end, or a second time. An answer
        that is kept for an Idempotency-Key and not streamed is finished all the same.
        """
        await self._leave(ClientLeft(), CLIENT_LEFT)

    def leave(self) -> None:
        """`abandon` for who cannot wait."""
        self._desk.spawn(self.abandon())

    async def give_up(self) -> None:
        """The mailbox is full: for the queue such a reader is a client that has left."""
        error = "The stream was read too slowly."
        await self._leave(Finished(("error",) * self._choices, Usage(), ended_by=SLOW_READER, error=error), SLOW_READER)

    async def revoke(self) -> None:
        """Its key may no longer ask for anything: it pays as if the client had left now."""
        error = "The API key is no longer valid."
        left: Finished | PlatformError = PlatformError(UNAUTHORIZED, error)
        if self._handed_out:
            left = Finished(("error",) * self._choices, Usage(), ended_by=REVOKED, error=error)
        await self._leave(left, REVOKED)

    async def interrupt(self, sentence: str) -> None:
        """End it now, without charge, unless it has just ended by itself."""
        if self._over or self._end is not None:
            return
        standing = await self._stop(Outcome.FAILED)
        if not _ended_well(standing):
            self._broken = sentence
            self._mailbox.ring()

    async def _leave(self, left: Finished | ClientLeft | PlatformError, why: str) -> None:
        if self._over:
            return
        self._left = left
        self._close()
        self._mailbox.ring()
        if self._end is not None or (why is CLIENT_LEFT and self._outlives_client):
            return
        bound = self._delivered + self._desk.settings.overshoot_tokens if self._streamed else 0
        self._desk.log.info(
            "request cut short",
            why=why,
            request_id=self.request_id,
            delivered_tokens=self._delivered,
            completion_tokens_max=bound,
        )
        # In a task of its own, since the caller may be on its way out by a cancellation.
        await asyncio.wait({self._desk.spawn(self._cancel(bound))})

    async def _cancel(self, bound: int) -> None:
        await self._stop(Outcome.CANCELLED, bound)

    async def _decide(self) -> Waiting | Finished | None:
        """What there is to do or say besides handing out text."""
        if isinstance(self._left, PlatformError):
            raise self._left
        if self._left is not None:
            return self._left if isinstance(self._left, Finished) else None
        said: Waiting | Finished | None = None
        if self._end is None:
            if self._broken is not None:
                await self._stop(Outcome.FAILED)
                return self._fail(UNAVAILABLE, self._broken)
            if self._lost_attempt is None and self._desk.clock.monotonic_s() < self.due_s:
                return None  # the common case: text has come, and `due_s` can only have moved later
            if self._lost_attempt is not None:
                said = None if self._vigil.held() else await self._recover(self._lost_attempt)
            elif self._vigil.is_due():
                said = await self._look()
            self.due_s = self._vigil.due_s()
        if said is None and self._end is not None and self._end.error is not None:
            said = self._fail(ENGINE_FAILED, self._end.error, ended_by=self._end.ended_by)
        return said

    async def _look(self) -> Waiting | Finished | None:
        """Nothing was heard for a while: ask the record, obey the clocks, tell the client that it still waits."""
        if self._kept is not None:
            return self._take_kept(self._kept)
        self._vigil.asked()
        standing: Standing | None = None
        try:
            standing = await self._desk.queue.standing(self.request_id)
        except QUEUE_AWAY:
            self._vigil.hold()
        else:
            finished = await self._obey(standing)
            if finished is not None or self._end is not None or self._kept is not None:
                return finished
        if self._vigil.has_expired():
            return await self._expire()
        if not self._vigil.must_tell():
            return None
        self._vigil.told()
        return Waiting(-1, 0) if standing is None else Waiting(standing.queue_position, standing.queue_wait_ms)

    async def _obey(self, standing: Standing) -> Finished | None:
        """Bring this side in line with the record."""
        if standing.state is RequestState.LOST:
            return await self._recover(standing.attempt)
        if standing.state is RequestState.SETTLED and standing.end is not None:
            self._keep(standing.end)
            return None
        if standing.state not in {RequestState.QUEUED, RequestState.RUNNING}:
            return self._fail(UNAVAILABLE, "The request's record is gone; nothing was charged.")
        if standing.attempt != self._attempt:
            if self._handed_out:
                return await self._lose()
            self._begin_anew(standing.attempt)
        if standing.state is RequestState.RUNNING and self._vigil.phase is Phase.QUEUED:
            self._vigil.enter(Phase.RUNNING)
        return None

    async def _recover(self, attempt: int) -> Finished | None:
        """The worker of this attempt is gone. Run it again, unless the client has a part of the answer already."""
        if self._handed_out:
            return await self._lose()
        self._begin_anew(attempt + 1)  # before asking: events of the next attempt may be quicker than the answer
        try:
            standing = await self._desk.queue.retry(self.request_id, attempt)
        except QUEUE_AWAY:
            self._vigil.hold()
            self._lost_attempt = attempt
            return None
        if standing.state is RequestState.SETTLED and standing.end is not None:
            self._end = standing.end  # the third loss, or too late
            return None
        if standing.state is RequestState.LOST:
            return self._fail(UNAVAILABLE, "The worker was lost; nothing was charged.")
        return await self._obey(standing)

    async def _lose(self) -> Finished:
        await self._stop(Outcome.FAILED)
        return self._fail(UNAVAILABLE, "The worker was lost in the middle of the answer; nothing was charged.")

    async def _expire(self) -> Finished | None:
        """One of the three clocks has run out."""
        standing = await self._stop(Outcome.TIMEOUT)
        if standing is not None and standing.end is not None and _ended_well(standing):
            self._keep(standing.end)
            return None
        limit_s, after_s = self._vigil.limit_s, self._desk.settings.busy_retry_after_s
        match self._vigil.phase:
            case Phase.QUEUED:
                words = "Service tier capacity exceeded for this model."
                return self._fail(CAPACITY, f"{words} The request waited {limit_s:g} s in the queue.", after_s)
            case Phase.RUNNING:
                return self._fail(UNAVAILABLE, f"No first token came within {limit_s:g} s.", after_s)
            case Phase.ANSWERING:
                return self._fail(UNAVAILABLE, f"No further token came within {limit_s:g} s.", after_s)

    def _keep(self, end: End) -> None:
        """It ended, says the record; the text before the end may still be on its way."""
        self._kept = end
        self._vigil.settled()

    def _take_kept(self, end: End) -> Finished | None:
        """The end itself never came. A choice's last token may be one without text, which no piece carries."""
        missing = end.usage.completion_tokens - self._choices - self._mailbox.received
        if end.error is not None:
            return self._fail(UNAVAILABLE, end.error, ended_by=end.ended_by)
        if missing > 0:
            return self._fail(UNAVAILABLE, f"At least {missing} tokens at the end of the answer were lost.")
        self._end = end
        return None

    def _begin_anew(self, attempt: int) -> None:
        self._attempt = attempt
        self._lost_attempt = None
        self._restarts += 1
        self._mailbox.clear()
        self._vigil.enter(Phase.QUEUED)

    def _finish(self, end: End) -> Finished:
        self._close()
        return Finished(end.finish_reasons, end.usage, end.cost_nano, end.vectors, end.ended_by)

    def _fail(
        self, kind: ErrorKind, sentence: str, retry_after_s: int | None = None, *, ended_by: str | None = None
    ) -> Finished:
        """The last event where text is out already; else raises, so that the status code can still say it."""
        self._close()
        self._desk.log.warning("request failed", request_id=self.request_id, code=kind.code, reason=sentence)
        if self._handed_out:
            return Finished(("error",) * self._choices, Usage(), ended_by=ended_by, error=sentence)
        after_s = 1 if retry_after_s is None and kind is UNAVAILABLE else retry_after_s
        raise PlatformError(kind, sentence, retry_after_s=after_s)

    def _close(self) -> None:
        self._over = True
        self._desk.closed(self.request_id)

    async def _stop(self, outcome: Outcome, completion_tokens_max: int = 0) -> Standing | None:
        return await self._desk.stop(self.request_id, self._deadline_ms, outcome, completion_tokens_max)


def _ended_well(standing: Standing | None) -> bool:
    """Settled by its worker before it could be stopped."""
    return standing is not None and standing.end is not None and standing.end.error is None


def _joined(deltas: list[Delta]) -> Answer:
    text = "".join([delta.text for delta in deltas])
    if not deltas or not deltas[0].logprobs:
        return Answer(text)
    return Answer(
        text,
        tuple([token_id for delta in deltas for token_id in delta.token_ids]),
        tuple([logprob for delta in deltas for logprob in delta.logprobs]),
    )
