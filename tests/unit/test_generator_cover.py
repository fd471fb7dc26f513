"""Tokens beyond what is covered stay inside until they are, or until an abort drops them."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import structlog

from core.catalog import Tier
from core.clock import SystemClock
from core.queue.executor import Ended
from tests.unit.loop_bench import MODEL, VOCABULARY, until
from tests.unit.test_generator import ids, job, run, text
from workers.engines.echo import EchoEngine
from workers.generator import Generator

WAIT_S = 20


class Stage:
    """A generator whose steps are gathered as they come."""

    def __init__(self, **echo) -> None:
        options = {"answer_tokens": 30, "faults": True, **echo}
        tier = Tier(name="pool", engine="echo", weights="-", context_tokens=2_048, price={"input": "0"}, echo=options)
        log = structlog.get_logger()
        self.engine = EchoEngine(tier, "-", SystemClock(), log)
        self.generator = Generator(self.engine, VOCABULARY, log)
        self.pieces = []
        self.ended = []

    async def gather(self) -> None:
        async for step in self.generator.steps():
            for event in step:
                (self.ended if isinstance(event, Ended) else self.pieces).append(event)

    def out(self, choice=None):
        return ids([piece for piece in self.pieces if choice in {None, piece.choice}])

    def text(self, choice=0):
        return text([piece for piece in self.pieces if piece.choice == choice])

    async def done(self):
        await until(lambda: bool(self.ended))
        (ended,) = self.ended
        return ended

    async def engine_is_done(self):
        await until(lambda: not self.generator.stats().running)


@asynccontextmanager
async def staged(*jobs, **echo):
    stage = Stage(**echo)
    await stage.generator.start()
    gathering = asyncio.create_task(stage.gather())
    for one in jobs:
        stage.generator.submit(one)
    try:
        yield stage
    finally:
        await stage.generator.close()
        async with asyncio.timeout(WAIT_S):
            await gathering


def covered(tokens, **sampling):
    return replace(job(**sampling), output_covered=tokens)


async def test_no_more_than_is_covered_comes_out_until_it_is():
    plain, first = await run(job(n=2))
    async with staged(covered(5, n=2)) as stage:
        await stage.engine_is_done()
        assert len(stage.out()) == 5
        for more in (6, 6, 3, 41):
            stage.generator.cover("r", more)
            await until(lambda more=more: len(stage.out()) == max(more, 6))
        assert not stage.ended
        stage.generator.cover("r", 1_000)
        ended = await stage.done()
    assert [stage.out(choice) for choice in range(2)] == [ids(plain[choice]) for choice in range(2)]
    assert [stage.text(choice) for choice in range(2)] == [text(plain[choice]) for choice in range(2)]
    assert ended.end == first.end


async def test_indices_and_log_probabilities_stay_with_their_tokens():
    async with staged(covered(7, n=3, logprobs=1), tokens_per_s=3_000.0) as stage:
        await stage.engine_is_done()
        stage.generator.cover("r", 50)
        stage.generator.cover("r", 90)
        await stage.done()
    for choice in range(3):
        count = 0
        for piece in [piece for piece in stage.pieces if piece.choice == choice]:
            assert piece.first_index == count
            assert [top[0][0] for _, top in piece.logprobs] == list(piece.token_ids)
            count += len(piece.token_ids)
        assert count == 30


async def test_an_abort_drops_what_is_withheld_and_ends_at_once():
    """Also where the engine had finished: nobody else would say so."""
    async with staged(covered(4, n=2)) as stage:
        await stage.engine_is_done()
        stage.generator.abort("r")
        ended = await stage.done()
        stage.generator.abort("r")
        stage.generator.cover("r", 100)
    assert len(stage.out()) == 4 == ended.end.usage.completion_tokens
    assert ended.end.finish_reasons == ("error", "error")
    assert not ended.failed


async def test_an_abort_leaves_a_choice_alone_that_had_ended_by_itself():
    plain, _ = await run(job(n=2, max_tokens=10))
    async with staged(covered(10, n=2, max_tokens=10)) as stage:
        await stage.engine_is_done()
        stage.generator.abort("r")
        ended = await stage.done()
    assert ended.end.finish_reasons == ("length", "error")
    assert stage.out(0) == ids(plain[0])


async def test_an_abort_in_the_middle_keeps_what_was_covered():
    async with staged(covered(3), tokens_per_s=200.0) as stage:
        await until(lambda: len(stage.out()) == 3)
        stage.generator.abort("r")
        ended = await stage.done()
    assert (len(stage.out()), ended.end.usage.completion_tokens) == (3, 3)
    assert ended.end.finish_reasons == ("error",)


async def test_a_stop_string_counts_only_when_it_is_covered():
    plain, _ = await run(job())
    words = text(plain[0]).split()
    stop = words[9][1:] + " " + words[10][:2]
    expected = text(plain[0])[: text(plain[0]).index(stop)]
    async with staged(covered(6, stop=(stop,))) as stage:
        await stage.engine_is_done()
        assert not stage.ended
        stage.generator.cover("r", 25)
        ended = await stage.done()
    assert stage.text() == expected
    assert (ended.end.finish_reasons, ended.end.usage.completion_tokens) == (("stop",), 11)
    async with staged(covered(6, stop=(stop,))) as stage:
        await stage.engine_is_done()
        stage.generator.abort("r")
        ended = await stage.done()
    assert (ended.end.finish_reasons, ended.end.usage.completion_tokens) == (("error",), 6)
    assert expected.startswith(stage.text())
    assert stage.text() == MODEL.decode(list(stage.out())), "no text of a token that is not counted, none missing"


async def test_tokens_of_an_earlier_attempt_are_part_of_what_is_covered():
    plain, first = await run(job())
    begun = ids(plain[0])[:8]
    async with staged(replace(covered(6), emitted_ids=(begun,))) as stage:
        await stage.engine_is_done()
        assert stage.out() == ()
        stage.generator.cover("r", 9)
        await until(lambda: len(stage.out()) == 1)
        stage.generator.cover("r", 30)
        ended = await stage.done()
    assert begun + stage.out() == ids(plain[0])
    assert ended.end == first.end


async def test_without_a_bound_there_is_nothing_to_cover():
    async with staged(covered(0)) as stage:
        stage.generator.cover("r", 1)
        stage.generator.cover("nobody", 1)
        ended = await stage.done()
    assert ended.end.usage.completion_tokens == 30


async def test_a_failing_choice_drops_what_is_withheld():
    async with staged(replace(job("[[echo:fail=9]]", n=2), output_covered=4)) as stage:
        ended = await stage.done()
    assert ended.failed
    assert ended.end.usage.completion_tokens == len(stage.out()) == 4
