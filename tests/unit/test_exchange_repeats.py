"""An Idempotency-Key used again: one run, one answer, told as often as it is asked for."""

import asyncio
from dataclasses import replace

import pytest
from exchange_stage import SLOT, Stage, chat, end, last, settings
from redis.exceptions import ConnectionError as RedisAway

from core import errors
from core.errors import PlatformError
from core.queue.base import RECORD_KEPT_MS, Claim, Outcome, Repeated
from core.wire import Answer, End, Usage
from gateway.conversation import Conversation
from gateway.replies import ClientLeft, Delta, Finished

CLAIM = Claim("workspace/route/key", "body")
OTHER_BODY = Claim(CLAIM.key, "another body")
WORDS = (Answer("an answer", (7, 8)),)


def kept(job, tokens=2, answers=WORDS):
    return replace(end(job, tokens), answers=answers)


def soon():
    return settings(repeat_pause_ms=1, repeat_pause_ms_max=2)


@pytest.fixture
async def stage():
    async with Stage(soon()).running() as stage:
        yield stage


async def recalled(stage, admission, left=None):
    repeated = await stage.exchange.ask(admission)
    assert isinstance(repeated, Repeated)
    return await stage.exchange.recall(repeated, left or asyncio.Event())


async def test_a_hundred_callers_at_once_get_the_one_answer(stage):
    _, job = await stage.begun(chat(streamed=False, claim=CLAIM))
    asking = [asyncio.create_task(recalled(stage, chat(streamed=False, claim=CLAIM))) for _ in range(100)]
    await stage.settled_down()
    assert not any(task.done() for task in asking)
    await stage.finish(kept(job))
    replies = await asyncio.gather(*asking)
    assert {reply.request_id for reply in replies} == {job.request_id}
    folded = [await reply.fold() for reply in replies]
    assert {(one.texts, one.usage) for one in folded} == {(("an answer",), Usage(10, 2))}
    assert [reply.admitted for reply in replies] == [None] * 100
    assert len(stage.broker.usage) == 1
    assert await stage.reservations() == 0


async def test_a_streamed_answer_is_told_again_in_one_piece(stage):
    conversation, job = await stage.begun(chat(n=2, claim=CLAIM))
    reading = asyncio.create_task(last(conversation.events()))
    answers = (Answer("one", (7,), ((-0.5, ()),)), Answer(""))
    await stage.finish(replace(end(job, 2, ("stop", "length")), answers=answers))
    await reading
    reply = await recalled(stage, chat(n=2, claim=CLAIM))
    assert [event async for event in reply.events()] == [
        Delta(0, "one", 1, (7,), ((-0.5, ()),)),
        Finished(("stop", "length"), Usage(10, 2), cost_nano=10 * 140 + 2 * 420),
    ]
    reply.leave()
    reply.delivered(0, 1)
    await reply.abandon()


async def test_vectors_are_told_again(stage):
    _, job = await stage.begun(chat(streamed=False, n=0, claim=CLAIM))
    await stage.finish(End(job.request_id, 1, usage=Usage(10), vectors=(b"\0\0\0\0",)))
    reply = await recalled(stage, chat(streamed=False, n=0, claim=CLAIM))
    assert (await reply.fold()).vectors == (b"\0\0\0\0",)


@pytest.mark.parametrize("streamed", [False, True])
async def test_another_body_is_told_so(stage, streamed):
    await stage.begun(chat(streamed=streamed, claim=CLAIM))
    with pytest.raises(PlatformError) as caught:
        await recalled(stage, chat(streamed=streamed, claim=OTHER_BODY))
    assert caught.value.kind is errors.IDEMPOTENCY_MISMATCH


async def test_a_stream_that_still_runs_is_a_409(stage):
    await stage.begun(chat(claim=CLAIM))
    with pytest.raises(PlatformError) as caught:
        await recalled(stage, chat(claim=CLAIM))
    assert (caught.value.kind, caught.value.retry_after_s) == (errors.IDEMPOTENCY_RUNNING, 2)


async def test_an_answer_that_is_no_longer_kept_is_a_409(stage):
    _, job = await stage.begun(chat(streamed=False, claim=CLAIM))
    await stage.finish(kept(job))
    stage.clock.advance(RECORD_KEPT_MS)
    with pytest.raises(PlatformError) as caught:
        await recalled(stage, chat(streamed=False, claim=CLAIM))
    assert caught.value.kind is errors.ANSWER_EXPIRED


async def test_an_end_without_its_answer_is_a_409(stage):
    _, job = await stage.begun(chat(streamed=False, claim=CLAIM))
    await stage.finish(kept(job, answers=()))
    with pytest.raises(PlatformError) as caught:
        await recalled(stage, chat(streamed=False, claim=CLAIM))
    assert caught.value.kind is errors.ANSWER_EXPIRED


async def test_after_a_failure_who_waited_asks_anew(stage):
    conversation, job = await stage.begun(chat(streamed=False, claim=CLAIM))
    folding = asyncio.create_task(conversation.fold())
    asking = asyncio.create_task(recalled(stage, chat(streamed=False, claim=CLAIM)))
    await stage.settled_down()
    await stage.finish(End(job.request_id, 1, ("error",), error="The engine said no."), Outcome.FAILED)
    with pytest.raises(PlatformError):
        await folding
    assert await asking is None
    assert isinstance(await stage.exchange.ask(chat(streamed=False, claim=CLAIM)), Conversation)


async def test_a_client_that_leaves_a_kept_answer_does_not_stop_it(stage):
    conversation, job = await stage.begun(chat(streamed=False, claim=CLAIM))
    folding = asyncio.create_task(conversation.fold())
    await stage.settled_down()
    await conversation.abandon()
    with pytest.raises(ClientLeft):
        await folding
    assert (await stage.workers.renew(SLOT)).cancelled == ()
    await stage.finish(kept(job))
    assert stage.usage(job).outcome == Outcome.FINISHED
    reply = await recalled(stage, chat(streamed=False, claim=CLAIM))
    assert (await reply.fold()).texts == ("an answer",)
    assert stage.exchange.open_count == 0


async def test_a_client_that_leaves_its_stream_frees_the_key(stage):
    conversation, job = await stage.begun(chat(claim=CLAIM))
    await conversation.abandon()
    assert (await stage.workers.renew(SLOT)).cancelled == (job.request_id,)
    await stage.finish(replace(end(job, 1, ("error",))))
    assert isinstance(await stage.exchange.ask(chat(claim=CLAIM)), Conversation)


async def test_who_waits_and_leaves_waits_no_longer(stage):
    await stage.begun(chat(streamed=False, claim=CLAIM))
    left = asyncio.Event()
    asking = asyncio.create_task(recalled(stage, chat(streamed=False, claim=CLAIM), left))
    await stage.settled_down()
    left.set()
    with pytest.raises(ClientLeft):
        await asking


async def test_waiting_is_bounded_in_time_in_number_and_by_the_drain():
    for bound in ({"repeat_wait_ms_max": 0}, {"repeats_max": 0}):
        async with Stage(settings(**bound)).running() as stage:
            await stage.begun(chat(streamed=False, claim=CLAIM))
            with pytest.raises(PlatformError) as caught:
                await recalled(stage, chat(streamed=False, claim=CLAIM))
            assert caught.value.kind is errors.IDEMPOTENCY_RUNNING
    async with Stage(soon()).running() as stage:
        conversation, _ = await stage.begun(chat(streamed=False, claim=CLAIM))
        asking = asyncio.create_task(recalled(stage, chat(streamed=False, claim=CLAIM)))
        await stage.settled_down()
        await conversation.abandon()
        await stage.exchange.drain(0.01)
        with pytest.raises(PlatformError) as caught:
            await asking
        assert caught.value.kind is errors.IDEMPOTENCY_RUNNING


async def test_a_queue_that_is_away_is_a_503():
    class Away:
        def __init__(self, queue):
            self._queue = queue

        def __getattr__(self, name):
            return getattr(self._queue, name)

        async def standing(self, _request_id):
            raise RedisAway

    async with Stage(soon(), wrap=Away).running() as stage:
        await stage.begun(chat(streamed=False, claim=CLAIM))
        with pytest.raises(PlatformError) as caught:
            await recalled(stage, chat(streamed=False, claim=CLAIM))
        assert caught.value.kind is errors.UNAVAILABLE
