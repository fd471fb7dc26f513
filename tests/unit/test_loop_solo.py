"""A job that was lost twice runs alone in its process, whatever tiers the process serves."""

from functools import partial

from core.queue.base import Outcome, WorkerSlot
from core.queue.memory import MemoryWorkerQueue
from core.queue.solo import SoloGate
from core.wire import CHAT, Job
from tests.unit.loop_bench import TIER, Bench, until


def job(request_id: str, attempt: int = 1) -> Job:
    return Job(request_id, "g1", "o", "w", "another tier", CHAT, 0, 1, 1, attempt=attempt)


def test_it_waits_for_the_others_and_they_for_it():
    gate, begun = SoloGate(), []

    def enter(request_id: str, attempt: int = 1) -> None:
        gate.enter(job(request_id, attempt), partial(begun.append, request_id))

    enter("a")
    enter("b")
    assert not gate.closed
    enter("poison", 3)
    enter("c")
    enter("second poison", 3)
    enter("d")
    assert (begun, gate.closed) == (["a", "b"], True)
    gate.leave("a")
    assert begun == ["a", "b"]
    gate.leave("b")
    assert begun == ["a", "b", "poison"]
    gate.leave("poison")
    assert begun == ["a", "b", "poison", "c"]
    assert gate.withdraw("second poison")
    assert not gate.withdraw("c")
    assert (begun, gate.closed) == (["a", "b", "poison", "c", "d"], False)


async def test_while_another_tier_runs_one_alone_nothing_is_taken():
    async with Bench() as bench:
        bench.gate.enter(job("poison", 3), lambda: None)
        await until(lambda: bench.line.rooms[-1:] == [0])
        await bench.ask("r")
        looks = len(bench.line.rooms)
        await until(lambda: len(bench.line.rooms) > looks + 1)
        assert (await bench.keeper.stats([TIER])).tiers[TIER].queued == 1
        bench.gate.leave("poison")
        assert (await bench.end("r")).finish_reasons == ("stop",)


async def test_what_was_taken_meanwhile_waits_and_can_be_cancelled():
    async with Bench() as bench:
        await until(lambda: bench.loop.registered)
        bench.gate.enter(job("held by another tier"), lambda: None)
        bench.gate.enter(job("poison", 3), lambda: None)
        await bench.ask("r")
        await until(lambda: bench.loop.running == 1)
        assert bench.engine.stats().running == 0
        await bench.gateway.cancel("r", 5)
        usage = await bench.usage("r")
        assert (usage.outcome, usage.prompt_tokens, usage.decoded_tokens) == (Outcome.CANCELLED, 0, 0)


async def test_a_job_that_was_lost_twice_begins_when_the_other_tiers_are_idle():
    bench = Bench()
    bench.line.cut = True  # another worker is to have it first
    async with bench:
        await bench.ask("r")
        other, slot = MemoryWorkerQueue(bench.broker), WorkerSlot("w0", TIER, 1)
        for attempt in (1, 2):
            taken = []
            while not taken:
                taken = await other.take(slot, 1, 0.1)
            assert taken[0].attempt == attempt
            await other.leave(slot)
        bench.gate.enter(job("of another tier"), lambda: None)
        bench.line.cut = False
        await until(lambda: bench.loop.running == 1)
        assert (bench.engine.stats().running, bench.gate.closed) == (0, True)
        bench.gate.leave("of another tier")
        assert (await bench.end("r")).attempt == 3
        assert not bench.gate.closed
