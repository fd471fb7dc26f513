"""Requests through the executor: order, poison, cancel, fairness, and never an endless wait."""

import asyncio
import threading
from collections.abc import Sequence
from contextlib import asynccontextmanager

import pytest
import structlog

from core.catalog import Tier
from core.clock import ManualClock
from core.errors import SetupError
from core.queue.executor import Ended
from core.wire import CHAT, EMBED, Job, Usage
from embed.encoders.hash import FAULT_MARKER, HashEncoder
from embed.executor import EmbeddingExecutor

DIMENSIONS = 8
WINDOW = 64
BUDGET = 128
WAIT_S = 20


class GatedEncoder(HashEncoder):
    """Notes what it is given, and waits in each pass until the gate is open."""

    def __init__(self) -> None:
        super().__init__(DIMENSIONS)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.passes: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        self.passes.append(list(texts))
        self.entered.set()
        assert self.gate.wait(WAIT_S)
        return super().encode(texts)

    def count(self, texts: Sequence[str]) -> list[int]:
        if any("uncountable" in text for text in texts):
            raise UnicodeError("no count")
        return super().count(texts)


def tier() -> Tier:
    return Tier.model_validate(
        {
            "name": "e",
            "kind": "embed",
            "engine": "hash",
            "weights": "none",
            "context_tokens": WINDOW,
            "dimensions": DIMENSIONS,
            "batch_tokens_max": BUDGET,
            "price": {"input": "0.10"},
        }
    )


def job(name: str, *texts: str, attempt: int = 1, kind: str = EMBED) -> Job:
    return Job(name, "s", "o", "w", "e", kind, 0, prompt_tokens=7, cost_expected=7, texts=texts, attempt=attempt)


def expected(*texts: str) -> tuple[bytes, ...]:
    return tuple(HashEncoder(DIMENSIONS).encode(texts))


@asynccontextmanager
async def running(encoder: HashEncoder, clock: ManualClock | None = None):
    executor = EmbeddingExecutor(tier(), encoder, clock or ManualClock(), structlog.stdlib.get_logger())
    await executor.start()
    try:
        yield executor
    finally:
        if isinstance(encoder, GatedEncoder):
            encoder.gate.set()
        await executor.close()


async def collect(executor: EmbeddingExecutor, count: int) -> list[Ended]:
    """The next `count` ends in order; nothing comes beyond them."""
    ended: list[Ended] = []
    async with asyncio.timeout(WAIT_S):
        async for step in executor.steps():
            ended += step
            if len(ended) >= count:
                break
    assert len(ended) == count
    return ended


async def busy(encoder: GatedEncoder, executor: EmbeddingExecutor) -> None:
    """Holds the encoder in a pass of one text."""
    encoder.gate.clear()
    executor.submit(job("holds", "holds"))
    assert await asyncio.to_thread(encoder.entered.wait, WAIT_S)


async def test_vectors_come_in_the_order_of_the_texts():
    texts = [f"{'word ' * (index % 7)}{index}" for index in range(100)]
    async with running(HashEncoder(DIMENSIONS)) as executor:
        executor.submit(job("r1", *texts, attempt=2))
        (ended,) = await collect(executor, 1)
    assert ended.end.vectors == expected(*texts)
    assert (ended.end.usage, ended.end.attempt, ended.failed) == (Usage(prompt_tokens=7), 2, False)


async def test_what_waits_is_encoded_together():
    encoder = GatedEncoder()
    async with running(encoder) as executor:
        await busy(encoder, executor)
        for name in "abcde":
            executor.submit(job(name, name))
        assert executor.stats().running == 6
        encoder.gate.set()
        await collect(executor, 6)
        assert executor.stats().running == 0
    assert [sorted(texts) for texts in encoder.passes] == [["holds"], ["a", "b", "c", "d", "e"]]


@pytest.mark.parametrize("poison", [FAULT_MARKER, "uncountable", "word " * WINDOW], ids=["raises", "count", "long"])
async def test_a_poisonous_text_fails_its_own_request_alone(poison):
    encoder = GatedEncoder()
    async with running(encoder) as executor:
        await busy(encoder, executor)
        for name in "abcdefg":
            executor.submit(job(name, f"{name}1", f"{name}2"))
        executor.submit(job("poisoned", "fine", poison))
        encoder.gate.set()
        ended = {one.end.request_id: one for one in await collect(executor, 9)}
    failed = ended.pop("poisoned")
    assert failed.failed
    assert "index 1" in (failed.end.error or "")
    assert failed.end.vectors == ()
    assert poison not in (failed.end.error or "")
    assert not any(one.failed for one in ended.values())
    assert all(ended[name].end.vectors == expected(f"{name}1", f"{name}2") for name in "abcdefg")


async def test_an_encoder_that_always_fails_fails_the_requests_and_goes_on():
    async with running(HashEncoder(DIMENSIONS, fault_marker="")) as executor:
        for _ in range(2):
            for number in range(20):
                executor.submit(job(f"r{number}", "a", "b"))
            assert all(one.failed for one in await collect(executor, 20))


async def test_an_answer_of_the_wrong_length_is_a_failure():
    class Forgetful(HashEncoder):
        def encode(self, texts: Sequence[str]) -> list[bytes]:
            return super().encode(texts)[1:]

    async with running(Forgetful(DIMENSIONS)) as executor:
        executor.submit(job("r", "a", "b"))
        (ended,) = await collect(executor, 1)
    assert ended.failed


async def test_a_dead_encoder_thread_ends_the_steps():
    class Died(BaseException):
        pass

    class Dying(HashEncoder):
        def encode(self, texts: Sequence[str]) -> list[bytes]:
            raise Died(len(texts))

    async with running(Dying(DIMENSIONS)) as executor:
        executor.submit(job("r", "a"))
        with pytest.raises(Died):
            await collect(executor, 1)


async def test_close_ends_the_steps():
    async with running(HashEncoder(DIMENSIONS)) as executor:
        await executor.close()
        assert await collect(executor, 0) == []


async def test_abort_drops_what_is_not_yet_encoded():
    encoder = GatedEncoder()
    async with running(encoder) as executor:
        await busy(encoder, executor)
        executor.submit(job("stays", "stays"))
        executor.submit(job("gone", "gone"))
        executor.abort("gone")
        executor.abort("never seen")
        (ended,) = await collect(executor, 1)
        assert (ended.end.request_id, ended.end.vectors, ended.failed) == ("gone", (), False)
        executor.abort("holds")  # in the middle of its pass
        assert (await collect(executor, 1))[0].end.request_id == "holds"
        encoder.gate.set()
        assert [one.end.request_id for one in await collect(executor, 1)] == ["stays"]
    assert encoder.passes == [["holds"], ["stays"]]


async def test_a_newer_attempt_takes_the_place_of_the_older():
    encoder = GatedEncoder()
    async with running(encoder) as executor:
        await busy(encoder, executor)
        executor.submit(job("holds", "holds", attempt=2))
        encoder.gate.set()
        ended = await collect(executor, 2)
    assert [(one.end.attempt, one.end.vectors) for one in ended] == [(1, ()), (2, expected("holds"))]


async def test_a_small_request_overtakes_a_large_one():
    encoder = GatedEncoder()
    async with running(encoder) as executor:
        await busy(encoder, executor)
        executor.submit(job("large", *(f"{number} " + "word " * 20 for number in range(256))))
        executor.submit(job("small", "hello"))
        encoder.gate.set()
        order = [one.end.request_id for one in await collect(executor, 3)]
    assert order == ["holds", "small", "large"]
    assert len(encoder.passes) > 20
    assert any("hello" in texts for texts in encoder.passes[1:3])


@pytest.mark.parametrize("bad", [job("r"), job("r", "text", kind=CHAT)], ids=["no text", "chat"])
async def test_a_bad_job_is_an_end_and_not_an_exception(bad):
    async with running(HashEncoder(DIMENSIONS)) as executor:
        executor.submit(bad)
        (ended,) = await collect(executor, 1)
    assert ended.failed


async def test_the_last_step_tells_a_stall_from_idleness():
    clock = ManualClock()
    encoder = GatedEncoder()
    async with running(encoder, clock) as executor:
        clock.advance(60_000)
        await busy(encoder, executor)
        assert executor.stats().last_step_s == clock.monotonic_s()
        clock.advance(60_000)
        assert executor.stats().last_step_s == clock.monotonic_s() - 60
        encoder.gate.set()
        await collect(executor, 1)
        assert executor.stats().last_step_s == clock.monotonic_s()


async def test_start_says_what_does_not_fit():
    class Unfit(HashEncoder):
        def load(self) -> None:
            raise SetupError("the encoder makes 8 dimensions")

    executor = EmbeddingExecutor(tier(), Unfit(DIMENSIONS), ManualClock(), structlog.stdlib.get_logger())
    with pytest.raises(SetupError):
        await executor.start()
    await executor.close()
