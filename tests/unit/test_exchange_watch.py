"""A key that is revoked or expires ends what was asked for with it, and only that."""

import asyncio

import pytest
import structlog
from exchange_stage import SLOT, Stage, chat, end, piece
from redis.exceptions import ConnectionError as RedisAway

from core import errors
from core.errors import UNAVAILABLE, PlatformError
from core.queue.base import Claim, Outcome
from gateway.principal import Standing
from gateway.replies import Delta
from gateway.watch import Watch


class Keys:
    """What `valid` answers by key; an exception is raised."""

    def __init__(self):
        self.answers = {}
        self.asked = []

    async def valid(self, key_id):
        self.asked.append(key_id)
        answer = self.answers[key_id]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
async def stage():
    async with Stage().running() as stage:
        stage.keys = Keys()
        quiet = structlog.wrap_logger(structlog.ReturnLogger())
        stage.watch = Watch(stage.exchange, stage.keeper, stage.keys, 1, stage.clock, quiet)
        yield stage


async def test_a_revoked_key_ends_its_stream_and_pays_for_what_it_was_given(stage):
    conversation, job = await stage.begun(chat(key_id="revoked"))
    events = conversation.events()
    await stage.send(piece(job, 0, "begun"))
    delta = await anext(events)
    conversation.delivered(delta.choice, delta.token_count)
    await stage.keeper.set_generation("org", 2)
    stage.keys.answers = {"revoked": None}
    await stage.watch.look()
    finished = await anext(events)
    assert (finished.finish_reasons, finished.ended_by) == (("error",), "revoked")
    assert (await stage.workers.renew(SLOT)).cancelled == (job.request_id,)
    await stage.finish(end(job, 500))
    assert (stage.usage(job).outcome, stage.usage(job).completion_tokens) == (Outcome.CANCELLED, 1 + 32)


@pytest.mark.parametrize("claim", [None, Claim("key", "body")])
async def test_without_text_it_is_a_401(stage, claim):
    conversation, job = await stage.begun(chat(streamed=False, key_id="revoked", claim=claim))
    folding = asyncio.create_task(conversation.fold())
    await stage.keeper.set_generation("org", 2)
    stage.keys.answers = {"revoked": None}
    await stage.watch.look()
    with pytest.raises(PlatformError) as caught:
        await folding
    assert caught.value.kind is errors.UNAUTHORIZED
    assert (await stage.workers.renew(SLOT)).cancelled == (job.request_id,)
    assert stage.exchange.open_count == 0


async def test_other_keys_go_on_and_are_asked_about_once(stage):
    conversation, job = await stage.begun(chat(key_id="good"))
    await stage.watch.look()
    assert stage.keys.asked == []
    await stage.keeper.set_generation("org", 2)
    stage.keys.answers = {"good": Standing(2)}
    await stage.watch.look()
    await stage.watch.look()
    assert stage.keys.asked == ["good"]
    await stage.send(piece(job, 0, "on"))
    assert await anext(conversation.events()) == Delta(0, "on", 1)


async def test_a_key_that_expires_ends_its_stream_and_one_that_was_prolonged_goes_on(stage):
    now_ms = stage.clock.now_ms()
    opened = {}
    for name in ("expires", "prolonged", "endless"):
        opened[name], _ = await stage.begun(chat(key_id=name))
    opened["expires"].expires_ms = opened["prolonged"].expires_ms = now_ms + 1_000
    await stage.watch.look()
    assert stage.keys.asked == []
    stage.clock.advance(1_000)
    stage.keys.answers = {"expires": None, "prolonged": Standing(1, now_ms + 5_000)}
    await stage.watch.look()
    await stage.watch.look()
    assert sorted(stage.keys.asked) == ["expires", "prolonged"]
    assert set(stage.exchange.conversations()) == {opened["prolonged"], opened["endless"]}
    stage.clock.advance(4_000)
    stage.keys.answers = {"prolonged": None}
    await stage.watch.look()
    assert set(stage.exchange.conversations()) == {opened["endless"]}


async def test_it_looks_again_when_nobody_could_tell(stage):
    keeper, away = stage.keeper, PlatformError(UNAVAILABLE, "SQL is away.")

    class FlakyKeeper:
        calls = 0

        async def generations(self, organisations):
            self.calls += 1
            if self.calls == 1:
                raise RedisAway
            return await keeper.generations(organisations)

    stage.watch._keeper = FlakyKeeper()
    _, job = await stage.begun(chat(key_id="key"))
    await stage.keeper.set_generation("org", 2)
    stage.keys.answers = {"key": away}
    running = asyncio.create_task(stage.watch.run())
    await stage.until(lambda: len(stage.keys.asked) > 1)
    stage.keys.answers = {"key": None}
    await stage.until(lambda: stage.exchange.open_count == 0)
    running.cancel()
    assert (await stage.workers.renew(SLOT)).cancelled == (job.request_id,)


async def test_nothing_open_nothing_asked(stage):
    stage.watch._keeper = None
    await stage.watch.look()
