"""Silence: how long it may last, what is told meanwhile, and what the record then says."""

import asyncio

import pytest
from exchange_stage import SLOT, Stage, chat, end, last, piece

from core import errors
from core.errors import PlatformError
from core.queue.base import Outcome
from core.wire import Usage
from gateway.replies import Delta, Finished, Waiting


@pytest.fixture
async def stage():
    async with Stage().running() as stage:
        yield stage


async def test_waiting_in_the_queue_is_told_and_ends_with_a_429(stage):
    first = await stage.exchange.ask(chat())
    second = await stage.exchange.ask(chat())
    events = second.events()
    reading = asyncio.create_task(anext(events))
    stage.clock.advance(10_000)
    assert await reading == Waiting(queue_position=1, queue_wait_ms=0)
    reading = asyncio.create_task(last(events))
    stage.clock.advance(110_000)
    with pytest.raises(PlatformError, match="waited 120 s") as caught:
        await reading
    assert (caught.value.kind, caught.value.retry_after_s) == (errors.CAPACITY, 10)
    assert stage.usage(second).outcome == Outcome.TIMEOUT
    await first.abandon()


async def test_no_first_token_is_a_503(stage):
    conversation, job = await stage.begun(chat())
    reading = asyncio.create_task(last(conversation.events()))
    stage.clock.advance(6_000)
    await stage.settled_down()  # the record says that it runs
    stage.clock.advance(119_000)
    await stage.settled_down()
    assert not reading.done()
    stage.clock.advance(1_000)
    with pytest.raises(PlatformError, match="No first token") as caught:
        await reading
    assert caught.value.kind is errors.UNAVAILABLE
    assert stage.usage(job).outcome == Outcome.TIMEOUT


async def test_an_answer_that_stops_coming_ends_with_an_error(stage):
    conversation, job = await stage.begun(chat())
    events = conversation.events()
    await stage.send(piece(job, 0, "a"))
    await anext(events)
    reading = asyncio.create_task(last(events))
    stage.clock.advance(60_000)
    finished = await reading
    assert finished.finish_reasons == ("error",)
    assert "No further token" in finished.error
    assert (stage.usage(job).outcome, stage.usage(job).cost_nano) == (Outcome.TIMEOUT, 0)


async def test_an_end_that_got_lost_is_taken_from_the_record(stage):
    conversation, job = await stage.begun(chat())
    events = conversation.events()
    await stage.send(piece(job, 0, "all of it", tokens=3))
    await anext(events)
    await stage.finish(end(job, 4), say=False)
    reading = asyncio.create_task(anext(events))
    await stage.pass_time(6_000, 1_000)
    assert await reading == Finished(("stop",), Usage(10, 4), cost_nano=10 * 140 + 4 * 420)


async def test_an_answer_is_never_called_whole_when_its_last_words_are_lost(stage):
    conversation, job = await stage.begun(chat(streamed=False))
    folding = asyncio.create_task(conversation.fold())
    await stage.send(piece(job, 0, "half"))
    await stage.finish(end(job, 4), say=False)
    await stage.pass_time(6_000, 1_000)
    with pytest.raises(PlatformError, match="At least 2 tokens"):
        await folding


async def test_a_loss_that_was_not_heard_of_is_seen_in_the_record(stage):
    conversation, _ = await stage.begun(chat())
    reading = asyncio.create_task(anext(conversation.events()))
    await stage.settled_down()
    stage.broker.replies.close(stage.submitter)  # whatever is sent now is lost
    await stage.workers.leave(SLOT)
    stage.clock.advance(6_000)
    again = await stage.take()
    assert again.attempt == 2
    await stage.memory_queue.open()
    await stage.send(piece(again, 0, "here"))
    assert await reading == Delta(0, "here", 1)


async def test_a_record_that_is_gone_is_a_503(stage):
    conversation, _ = await stage.begun(chat())
    stage.broker._open.clear()
    reading = asyncio.create_task(anext(conversation.events()))
    stage.clock.advance(6_000)
    with pytest.raises(PlatformError, match="record is gone") as caught:
        await reading
    assert caught.value.kind is errors.UNAVAILABLE
