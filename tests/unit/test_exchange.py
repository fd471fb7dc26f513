"""A conversation from its admission to its end, with the worker's side driven by hand."""

import asyncio
from dataclasses import replace

import pytest
import structlog
from exchange_stage import SLOT, Stage, chat, end, last, piece, settings

from core import errors
from core.errors import PlatformError
from core.queue.base import (
    Outcome,
    RefusedBy,
    RequestState,
)
from core.queue.rules import Rule, RuleKind
from core.wire import End, Usage
from gateway.replies import ClientLeft, Delta, Finished


@pytest.fixture
async def stage():
    async with Stage().running() as stage:
        yield stage


async def test_text_comes_as_it_is_sent_and_the_end_carries_usage_and_cost(stage):
    conversation, job = await stage.begun(chat())
    events = conversation.events()
    await stage.send(piece(job, 0, "Hel"))
    assert await anext(events) == Delta(0, "Hel", 1)
    await stage.send(piece(job, 1, "lo\r\n", tokens=2))
    assert await anext(events) == Delta(0, "lo\r\n", 2)
    await stage.finish(end(job, 4))
    finished = await anext(events)
    assert finished == Finished(("stop",), Usage(10, 4), cost_nano=(10 * 140 + 4 * 420))
    with pytest.raises(StopAsyncIteration):
        await anext(events)
    await conversation.abandon()
    assert stage.usage(job).outcome == Outcome.FINISHED
    assert stage.exchange.open_count == 0


async def test_a_folded_answer_is_made_of_the_same_events(stage):
    conversation, job = await stage.begun(chat(streamed=False, n=2))
    folding = asyncio.create_task(conversation.fold())
    await stage.send(piece(job, 0, "a", choice=0), piece(job, 0, "x", choice=1), piece(job, 1, "b", choice=0))
    await stage.finish(end(job, 3, reasons=("stop", "length")))
    folded = await folding
    assert folded.texts == ("ab", "x")
    assert (folded.finish_reasons, folded.usage.completion_tokens) == (("stop", "length"), 3)


async def test_vectors_come_with_the_end(stage):
    conversation, job = await stage.begun(chat(streamed=False, n=0))
    await stage.finish(End(job.request_id, 1, usage=Usage(10), vectors=(b"\0\0\0\0",)))
    folded = await conversation.fold()
    assert (folded.texts, folded.vectors) == ((), (b"\0\0\0\0",))


async def test_tokens_without_text_are_counted_with_the_text_that_follows(stage):
    conversation, job = await stage.begun(chat())
    await stage.send(piece(job, 0, "", tokens=3), piece(job, 3, "é"))
    assert await anext(conversation.events()) == Delta(0, "é", 4)


async def test_a_slow_reader_gets_merged_text(stage):
    conversation, job = await stage.begun(chat(n=2))
    events = conversation.events()
    for index, letter in enumerate("abc"):
        await stage.send(piece(job, index, letter), piece(job, index, letter.upper(), choice=1))
    await stage.settled_down()
    assert [await anext(events), await anext(events)] == [Delta(0, "abc", 3), Delta(1, "ABC", 3)]


async def test_a_hopeless_reader_is_cancelled_and_told_so():
    async with Stage(settings(text_chars_max=8)).running() as stage:
        conversation, job = await stage.begun(chat())
        events = conversation.events()
        await stage.send(piece(job, 0, "12345678"))
        delta = await anext(events)
        conversation.delivered(0, delta.token_count)
        await stage.send(piece(job, 1, "12345678"), piece(job, 2, "9"), piece(job, 3, "10"))
        await stage.settled_down()
        finished = await anext(events)
        assert (finished.finish_reasons, finished.ended_by) == (("error",), "slow_reader")
        assert (await stage.workers.renew(SLOT)).cancelled == (job.request_id,)
        await stage.finish(end(job, 200))
        assert stage.usage(job).completion_tokens == 1 + 32


async def test_unread_probabilities_are_bounded_too():
    async with Stage(settings(text_chars_max=100)).running() as stage:
        conversation, job = await stage.begun(chat())
        flood = ((-1.0, tuple((token, -2.0) for token in range(20))),)
        await stage.send(replace(piece(job, 0, ""), logprobs=flood))
        await stage.settled_down()
        assert (await anext(conversation.events())).ended_by == "slow_reader"


async def test_probabilities_wait_for_their_text(stage):
    conversation, job = await stage.begun(chat())
    events = conversation.events()
    await stage.send(replace(piece(job, 0, ""), logprobs=((-1.0, ()),)))
    await stage.send(replace(piece(job, 1, "é"), token_ids=(9,), logprobs=((-2.0, ((9, -2.0),)),)))
    assert await anext(events) == Delta(0, "é", 2, (0, 9), ((-1.0, ()), (-2.0, ((9, -2.0),))))
    await stage.send(piece(job, 2, "e"))
    assert await anext(events) == Delta(0, "e", 1)


async def test_a_request_whose_worker_is_lost_before_anything_was_handed_out_runs_again(stage):
    conversation, job = await stage.begun(chat())
    events = conversation.events()
    await stage.send(piece(job, 0, "never read"))
    await stage.workers.leave(SLOT)
    reading = asyncio.create_task(anext(events))
    again = await stage.take()
    assert (again.request_id, again.attempt) == (job.request_id, 2)
    await stage.send(piece(job, 1, " stale"), piece(again, 0, "new"))
    assert await reading == Delta(0, "new", 1)
    await stage.finish(end(again, 1))
    assert (await anext(events)).finish_reasons == ("stop",)
    assert stage.usage(job).attempt == 2


async def test_an_answer_that_has_begun_ends_with_an_error_and_costs_nothing(stage):
    conversation, job = await stage.begun(chat())
    events = conversation.events()
    await stage.send(piece(job, 0, "begun"))
    await anext(events)
    await stage.workers.leave(SLOT)
    finished = await anext(events)
    assert (finished.finish_reasons, finished.cost_nano, finished.usage) == (("error",), 0, Usage())
    assert "lost" in finished.error
    assert (stage.usage(job).outcome, stage.usage(job).cost_nano) == (Outcome.FAILED, 0)


async def test_a_folded_answer_survives_the_loss_of_its_worker_at_any_time(stage):
    conversation, job = await stage.begun(chat(streamed=False))
    folding = asyncio.create_task(conversation.fold())
    await stage.send(piece(job, 0, "half an"))
    await stage.settled_down()
    await stage.workers.leave(SLOT)
    again = await stage.take()
    await stage.send(piece(again, 0, "a whole answer"))
    await stage.finish(end(again, 1))
    assert (await folding).texts == ("a whole answer",)


async def test_the_third_loss_ends_the_request(stage):
    conversation = await stage.exchange.ask(chat())
    reading = asyncio.create_task(last(conversation.events()))
    for attempt in (1, 2, 3):
        job = await stage.take()
        assert job.attempt == attempt
        await stage.lease_runs_out()
    with pytest.raises(PlatformError) as caught:
        await reading
    assert caught.value.kind is errors.ENGINE_FAILED
    assert (await stage.keeper.stats(["tiny"])).dead_letters == 1


@pytest.mark.parametrize(("handed_out", "completion_tokens"), [(True, 2 + 32), (False, 32)])
async def test_leaving_bills_what_was_delivered_and_a_little(stage, handed_out, completion_tokens):
    conversation, job = await stage.begun(chat())
    events = conversation.events()
    await stage.send(piece(job, 0, "ab", tokens=2))
    delta = await anext(events)
    if handed_out:
        conversation.delivered(delta.choice, delta.token_count)
    await conversation.abandon()
    await conversation.abandon()
    with pytest.raises(StopAsyncIteration):
        await anext(events)
    assert (await stage.workers.renew(SLOT)).cancelled == (job.request_id,)
    await stage.finish(end(job, 500))
    assert (stage.usage(job).outcome, stage.usage(job).completion_tokens) == (Outcome.CANCELLED, completion_tokens)
    assert stage.exchange.open_count == 0


async def test_leaving_a_folded_answer_bills_the_prompt_alone(stage):
    conversation, job = await stage.begun(chat(streamed=False))
    folding = asyncio.create_task(conversation.fold())
    await stage.send(piece(job, 0, "unseen"))
    await stage.settled_down()
    await conversation.abandon()
    with pytest.raises(ClientLeft):
        await folding
    await stage.finish(end(job, 9))
    assert (stage.usage(job).prompt_tokens, stage.usage(job).completion_tokens) == (10, 0)


async def test_leaving_before_a_worker_has_it_costs_nothing(stage):
    conversation = await stage.exchange.ask(chat())
    await conversation.abandon()
    assert await stage.reservations() == 0
    assert stage.usage(conversation).cost_nano == 0


async def test_leaving_after_the_end_changes_nothing(stage):
    conversation, job = await stage.begun(chat())
    await stage.send(piece(job, 0, "whole"))
    await stage.finish(end(job, 1))
    await stage.settled_down()
    await conversation.abandon()
    assert stage.usage(job).outcome == Outcome.FINISHED


@pytest.mark.parametrize("begun", [False, True])
async def test_a_gap_ends_the_request_without_charge(stage, begun):
    conversation, job = await stage.begun(chat())
    events = conversation.events()
    await stage.send(piece(job, 0, "a"))
    if begun:
        await anext(events)
    await stage.send(piece(job, 2, "c"))
    await stage.settled_down()
    if begun:
        assert (await anext(events)).finish_reasons == ("error",)
    else:
        with pytest.raises(PlatformError) as caught:
            await anext(events)
        assert (caught.value.kind, caught.value.retry_after_s) == (errors.UNAVAILABLE, 1)
    assert stage.usage(job).cost_nano == 0


async def test_a_piece_that_was_sent_twice_is_read_once(stage):
    conversation, job = await stage.begun(chat())
    await stage.send(piece(job, 0, "a"), piece(job, 0, "a"), piece(job, 1, "b"))
    assert await anext(conversation.events()) == Delta(0, "ab", 2)


@pytest.mark.parametrize("begun", [False, True])
async def test_an_engine_that_fails_is_a_500_or_an_error_at_the_end(stage, begun):
    conversation, job = await stage.begun(chat())
    events = conversation.events()
    if begun:
        await stage.send(piece(job, 0, "a"))
        await anext(events)
    await stage.finish(End(job.request_id, 1, ("error",), error="The engine said no."), Outcome.FAILED)
    if begun:
        finished = await anext(events)
        assert (finished.finish_reasons, finished.error) == (("error",), "The engine said no.")
    else:
        with pytest.raises(PlatformError, match=r"The engine said no\.") as caught:
            await anext(events)
        assert caught.value.kind is errors.ENGINE_FAILED


async def test_a_refusal_is_an_answer_and_leaves_nothing_behind(stage):
    await stage.keeper.set_generation("org", 2)
    stale = await stage.exchange.ask(chat(generation=1))
    assert stale.by is RefusedBy.STALE
    rule = Rule(RuleKind.CONCURRENCY, "workspace", "w", 0)
    refused = await stage.exchange.ask(chat(generation=2, rules=(rule,)))
    assert (refused.by, refused.refusal.rule) == (RefusedBy.RULE, "concurrency")
    assert (stage.exchange.open_count, await stage.reservations(), stage.broker.usage) == (0, 0, {})


async def test_draining_lets_requests_end_then_cuts_the_rest():
    async with Stage().running() as stage:
        ending, job = await stage.begun(chat())
        reading = asyncio.create_task(last(ending.events()))
        streamed = await stage.exchange.ask(chat())
        job_streamed = await stage.take()
        events = streamed.events()
        await stage.send(piece(job_streamed, 0, "long"))
        await anext(events)
        folded = await stage.exchange.ask(chat(streamed=False))
        cut = [asyncio.create_task(last(events)), asyncio.create_task(folded.fold())]
        draining = asyncio.create_task(stage.exchange.drain(0.1))
        await asyncio.sleep(0)
        with pytest.raises(PlatformError, match="shutting down") as caught:
            await stage.exchange.ask(chat())
        assert caught.value.retry_after_s == 1
        await stage.send(piece(job, 0, "short"))
        await stage.finish(end(job, 1))
        assert (await reading).finish_reasons == ("stop",)
        await draining
        assert (await cut[0]).finish_reasons == ("error",)
        with pytest.raises(PlatformError, match="shutting down"):
            await cut[1]
        assert await stage.reservations() == 0
        assert stage.usage(job_streamed).cost_nano == 0


async def test_too_many_open_requests_are_refused():
    async with Stage(settings(open_max=1)).running() as stage:
        await stage.exchange.ask(chat())
        with pytest.raises(PlatformError, match="too many open requests"):
            await stage.exchange.ask(chat())


async def test_two_hundred_streams_at_once_each_get_their_own_text(stage):
    async def read(conversation):
        return "".join([event.text async for event in conversation.events() if isinstance(event, Delta)])

    readers = {}
    for _ in range(200):
        conversation = await stage.exchange.ask(chat())
        readers[conversation.request_id] = asyncio.create_task(read(conversation))
    jobs = [await stage.take() for _ in range(200)]
    for index in range(5):
        await stage.send(*(piece(job, index, f"{job.request_id[-4:]} ") for job in jobs))
        await asyncio.sleep(0)
    for job in jobs:
        await stage.finish(end(job, 5))
    for request_id, reader in readers.items():
        assert await reader == f"{request_id[-4:]} " * 5


def test_an_exchange_logs_no_text(capsys):
    structlog.reset_defaults()

    async def scene():
        async with Stage(log=structlog.get_logger()).running() as stage:
            conversation, job = await stage.begun(chat())
            events = conversation.events()
            await stage.send(piece(job, 0, "SECRET WORDS"))
            await anext(events)
            await stage.workers.leave(SLOT)
            await anext(events)
            assert stage.broker.standing(job.request_id).state is RequestState.SETTLED

    asyncio.run(scene())
    printed = capsys.readouterr().out
    assert "request failed" in printed
    assert "SECRET" not in printed
