"""The queue goes away and comes back: what is open goes on, what is new is told 503, what was stopped stays stopped."""

import asyncio

import pytest
from exchange_stage import SLOT, Stage, chat, end, piece, settings
from redis.exceptions import ConnectionError as RedisAway

from core import errors
from core.errors import PlatformError
from core.queue.base import Outcome
from gateway.replies import Delta


class Breakable:
    """A submitter's queue behind a wire that a test cuts, for all calls or the named ones; `deaf` acts, then fails."""

    def __init__(self, queue):
        self._queue = queue
        self.cut = set()
        self.deaf = set()
        self.asked = []

    def __getattr__(self, name):
        method = getattr(self._queue, name)

        async def call(*arguments):
            self.asked.append(name)
            if name in self.cut:
                raise RedisAway
            answer = await method(*arguments)
            if name in self.deaf:
                raise RedisAway
            return answer

        return call

    def cut_all(self):
        self.cut = {"admit", "receive", "retry", "cancel", "standing"}

    def mend(self):
        self.cut, self.deaf = set(), set()


@pytest.fixture
async def stage():
    async with Stage(wrap=Breakable).running() as stage:
        yield stage
        stage.queue.mend()


async def test_an_open_stream_goes_on_after_an_outage(stage):
    conversation, job = await stage.begun(chat())
    events = conversation.events()
    stage.queue.cut_all()
    await stage.until(lambda: not stage.exchange.connected)
    await stage.send(piece(job, 0, "kept"))
    reading = asyncio.create_task(anext(events))
    stage.queue.mend()
    assert await reading == Delta(0, "kept", 1)
    await stage.until(lambda: stage.exchange.connected)


@pytest.mark.parametrize("how", ["cut", "deaf"])
async def test_admission_during_an_outage_is_a_503_and_leaves_nothing_behind(stage, how):
    getattr(stage.queue, how).add("admit")
    with pytest.raises(PlatformError) as caught:
        await stage.exchange.ask(chat())
    assert (caught.value.kind, caught.value.retry_after_s) == (errors.UNAVAILABLE, 1)
    await stage.until(lambda: "cancel" in stage.queue.asked)
    assert await stage.reservations() == 0
    assert stage.exchange.open_count == 0


async def test_a_caller_who_is_cancelled_while_it_is_admitted_leaves_nothing_behind(stage):
    admitted, hold = asyncio.Event(), asyncio.Event()

    async def admit_slowly(admission):
        answer = stage.broker.admit(admission)
        admitted.set()
        await hold.wait()
        return answer

    stage.queue.admit = admit_slowly
    opening = asyncio.create_task(stage.exchange.ask(chat()))
    await admitted.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await stage.until(lambda: "cancel" in stage.queue.asked)
    assert await stage.reservations() == 0


async def test_a_cancel_is_told_when_the_queue_is_back(stage):
    conversation, job = await stage.begun(chat())
    stage.queue.cut_all()
    await conversation.abandon()
    stage.queue.mend()
    asked = len(stage.queue.asked)
    await stage.until(lambda: "cancel" in stage.queue.asked[asked:])
    assert (await stage.workers.renew(SLOT)).cancelled == (job.request_id,)


@pytest.mark.parametrize("how", ["cut", "deaf"])
async def test_a_retry_that_fails_is_made_again(stage, how):
    conversation, _ = await stage.begun(chat())
    reading = asyncio.create_task(anext(conversation.events()))
    getattr(stage.queue, how).add("retry")
    await stage.workers.leave(SLOT)
    await stage.until(lambda: "retry" in stage.queue.asked)
    stage.queue.mend()
    await stage.pass_time(10)
    again = await stage.take()
    await stage.send(piece(again, 0, "at last"))
    assert await reading == Delta(0, "at last", 1)


async def test_clocks_run_on_while_nobody_can_be_asked(stage):
    conversation, job = await stage.begun(chat())
    events = conversation.events()
    await stage.send(piece(job, 0, "a"))
    await anext(events)
    stage.queue.cut = {"standing", "cancel"}
    reading = asyncio.create_task(anext(events))
    stage.clock.advance(60_000)
    assert (await reading).finish_reasons == ("error",)
    stage.queue.mend()
    asked = len(stage.queue.asked)
    await stage.until(lambda: "cancel" in stage.queue.asked[asked:])
    assert stage.usage(job).outcome == Outcome.TIMEOUT


async def test_leases_are_reaped_by_whoever_runs_and_an_outage_does_not_stop_it():
    class FlakyKeeper:
        calls = 0

        async def reap(self):
            self.calls += 1
            if self.calls == 1:
                raise RedisAway
            return 0

    stage = Stage(settings(reap_every_ms=1))
    stage.exchange._keeper = keeper = FlakyKeeper()
    async with stage.running():
        await stage.until(lambda: keeper.calls > 2)


async def test_an_end_that_was_kept_survives_an_outage_of_the_reply_stream(stage):
    conversation, job = await stage.begun(chat(streamed=False))
    folding = asyncio.create_task(conversation.fold())
    await stage.send(piece(job, 0, "answer"))
    await stage.settled_down()
    stage.queue.cut = {"receive"}
    await stage.finish(end(job, 1), say=False)
    await stage.pass_time(6_000, 1_000)
    assert (await folding).texts == ("answer",)
