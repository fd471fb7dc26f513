"""Take, renew, finish over the echo engine and the queue in memory: the life of a request in a worker."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from core.queue.base import Outcome
from core.queue.loop import ExecutorStalledError
from core.queue.metrics import WorkerMetrics
from core.wire import End, Piece
from tests.unit.loop_bench import Bench, settings, until


async def test_an_answer_at_once_is_one_message_pieces_before_the_end():
    async with Bench(answer_tokens=7) as bench:
        await bench.ask("r", "hello")
        end = await bench.end("r")
        assert end.finish_reasons == ("stop",)
        assert (end.usage.completion_tokens, end.error) == (7, None)
        ((_, message),) = bench.line.messages
        assert [type(event) for event in message] == [Piece, End]
        usage = await bench.usage("r")
        assert (usage.outcome, usage.completion_tokens) == (Outcome.FINISHED, 7)
        assert usage.prompt_tokens == end.usage.prompt_tokens > 0
        assert usage.first_token_ms >= 1


async def test_tokens_requests_and_outcomes_are_counted():
    registry = CollectorRegistry()
    async with Bench(observer=WorkerMetrics(registry).of("pool"), answer_tokens=7) as bench:
        await bench.ask("good", n=2)
        await bench.ask("bad", "[[echo:fail=0]]")
        await bench.end("good")
        await bench.end("bad")

        def sample(name, **labels):
            return registry.get_sample_value(f"tramontane_worker_{name}", {"tier": "pool", **labels})

        await until(lambda: sample("running") == 0)
        assert sample("tokens_total") == 14
        assert 1 <= sample("steps_total") <= 4
        assert (sample("requests_total", outcome="finished"), sample("requests_total", outcome="failed")) == (1, 1)


async def test_many_requests_share_few_slots():
    async with Bench(slots=4) as bench:
        for i in range(50):
            await bench.ask(f"r{i}", n=1 + i % 2)
        ends = [await bench.end(f"r{i}") for i in range(50)]
        assert [len(end.finish_reasons) for end in ends] == [1 + i % 2 for i in range(50)]
        assert all(bench.text(f"r{i}") for i in range(50))
        await until(lambda: bench.loop.running == 0)
        assert (await bench.keeper.stats(["pool"])).reservations_open == 0


async def test_a_slow_answer_comes_piece_by_piece():
    async with Bench(tokens_per_s=200, answer_tokens=20) as bench:
        await bench.ask("r")
        assert (await bench.end("r")).usage.completion_tokens == 20
        assert len(bench.pieces("r")) > 3


async def test_a_cancel_stops_the_engine_and_bills_what_the_caller_got():
    async with Bench(tokens_per_s=200, answer_tokens=1_000) as bench:
        await bench.ask("r")
        await until(lambda: sum(len(piece.token_ids) for piece in bench.pieces("r")) > 3)
        await bench.gateway.cancel("r", 3)
        usage = await bench.usage("r")
        assert (usage.outcome, usage.completion_tokens) == (Outcome.CANCELLED, 3)
        assert 3 <= usage.decoded_tokens < 1_000
        assert bench.engine.stats().running == 0


async def test_a_cancel_is_seen_while_there_is_no_room():
    async with Bench(slots=1, tokens_per_s=50, answer_tokens=4_000) as bench:
        await bench.ask("r")
        await bench.begun("r")
        await bench.ask("next", "[[echo:tokens=2]]")
        await bench.gateway.cancel("r", 1)
        assert (await bench.end("next")).usage.completion_tokens == 2


async def test_past_its_deadline_a_request_is_ended_and_not_charged():
    async with Bench(tokens_per_s=100, answer_tokens=4_000) as bench:
        await bench.ask("r", deadline_ms=10_000)
        await bench.begun("r")
        bench.clock.added_ms = 11_000
        end = await bench.end("r")
        assert end.finish_reasons == ("error",)
        assert "deadline" in end.error
        usage = await bench.usage("r")
        assert (usage.outcome, usage.prompt_tokens, usage.completion_tokens) == (Outcome.TIMEOUT, 0, 0)


async def test_without_a_reader_the_work_stops():
    async with Bench(tokens_per_s=100, answer_tokens=4_000) as bench:
        await bench.ask("r")
        await bench.begun("r")
        await bench.deaf()
        usage = await bench.usage("r")
        assert (usage.outcome, usage.completion_tokens) == (Outcome.GATEWAY_LOST, 0)
        assert bench.engine.stats().running == 0


async def test_a_failing_engine_ends_only_its_request():
    async with Bench(tokens_per_s=400) as bench:
        await bench.ask("bad", "[[echo:fail=3]]", n=2)
        await bench.ask("good")
        bad = await bench.end("bad")
        assert (bad.finish_reasons[0], bad.usage.completion_tokens) == ("error", 0)
        assert bad.error
        assert (await bench.usage("bad")).outcome == Outcome.FAILED
        assert (await bench.end("good")).error is None


async def lose_the_lease(bench):
    """Redis cannot be reached for longer than a lease, while others reap."""
    bench.line.cut = True
    lost = 0
    for _ in range(4):
        lost += await bench.keeper.reap()
        bench.clock.added_ms += 2_500
    bench.line.cut = False
    return lost


async def test_a_lost_lease_begins_anew_under_another_name():
    async with Bench(slots=1, tokens_per_s=100, answer_tokens=60) as bench:
        await bench.ask("r")
        await until(lambda: bench.loop.running == 1)
        assert await lose_the_lease(bench) == 1
        end = await bench.end("r")
        assert (end.attempt, end.usage.completion_tokens) == (2, 60)
        assert {finish.worker_id for finish in bench.line.finishes} == {"w1.2"}
        assert (await bench.usage("r")).outcome == Outcome.FINISHED


async def test_a_newer_attempt_of_what_it_holds_replaces_the_old_one():
    async with Bench(slots=8, tokens_per_s=100, answer_tokens=60) as bench:
        await bench.ask("r")
        await until(lambda: bench.loop.running == 1)
        assert await lose_the_lease(bench) == 1
        end = await bench.end("r")
        assert (end.attempt, end.usage.completion_tokens) == (2, 60)
        assert [finish.end.attempt for finish in bench.line.finishes] == [2]
        assert bench.engine.stats().running == 0


async def test_while_redis_is_away_results_wait_merged():
    async with Bench(tokens_per_s=400, answer_tokens=40) as bench:
        await bench.ask("r")
        await bench.begun("r")
        bench.line.cut = True
        sent = len(bench.line.messages)
        await until(lambda: bench.engine.stats().running == 0)
        assert bench.loop.away
        bench.line.cut = False
        assert (await bench.end("r")).usage.completion_tokens == 40
        assert len(bench.text("r").split()) == 40
        assert len(bench.line.messages) - sent <= 2
        assert not bench.loop.away


async def test_a_full_outbox_holds_the_engine_back():
    async with Bench(answer_tokens=100, loop=settings(outbox_tokens_max=250)) as bench:
        await until(lambda: bench.loop.registered)
        bench.line.answers_lost.add("send")
        for i in range(8):
            await bench.ask(f"r{i}")
        for i in range(8):
            await bench.end(f"r{i}")
            assert len(bench.text(f"r{i}").split()) == 100


async def test_jobs_of_a_lost_answer_go_back_at_once():
    async with Bench() as bench:
        await until(lambda: bench.loop.registered)
        bench.line.answers_lost.add("take")
        await bench.ask("r")
        end = await bench.end("r")
        assert (end.attempt, end.finish_reasons) == (2, ("stop",))
        assert bench.line.left == ["w1"]


async def test_jobs_of_a_lost_answer_go_back_when_the_rest_is_finished():
    async with Bench(tokens_per_s=200, answer_tokens=60) as bench:
        await bench.ask("known")
        await bench.begun("known")
        bench.line.answers_lost.add("take")
        await bench.ask("unknown")
        assert (await bench.end("known")).attempt == 1
        assert (await bench.end("unknown")).attempt == 2
        assert bench.line.left == ["w1"]
        assert [finish.worker_id for finish in bench.line.finishes] == ["w1", "w1.2"]


async def test_a_lost_answer_of_finish_still_brings_the_text():
    async with Bench(answer_tokens=9) as bench:
        await until(lambda: bench.loop.registered)
        bench.line.answers_lost.add("finish")
        await bench.ask("r")
        await bench.begun("r")
        assert len(bench.text("r").split()) == 9
        standing = await bench.gateway.standing("r")
        assert standing.end.usage.completion_tokens == (await bench.usage("r")).completion_tokens == 9
        await until(lambda: bench.loop.running == 0)


async def test_a_hung_engine_ends_the_loop():
    async with Bench(loop=settings(engine_stall_s=0.2)) as bench:
        await bench.ask("r", "[[echo:stall=2]]")
        with pytest.raises(ExceptionGroup) as raised:
            await asyncio.wait_for(asyncio.shield(bench.running), 20)
        assert raised.group_contains(ExecutorStalledError)
        assert bench.line.left == []


async def test_draining_finishes_what_runs_and_takes_nothing_more():
    async with Bench(tokens_per_s=200, answer_tokens=40) as bench:
        await bench.ask("r")
        await bench.begun("r")
        bench.loop.drain()
        await bench.running
        assert (await bench.end("r")).usage.completion_tokens == 40
        await bench.ask("late")
        stats = (await bench.keeper.stats(["pool"])).tiers["pool"]
        assert (stats.queued, stats.running, stats.workers) == (1, 0, 0)


async def test_what_drains_too_slowly_goes_back_without_a_strike():
    async with Bench(tokens_per_s=10, answer_tokens=4_000, loop=settings(drain_s=0.2)) as bench:
        await bench.ask("r")
        await bench.begun("r")
        bench.loop.drain()
        await bench.running
        stats = (await bench.keeper.stats(["pool"])).tiers["pool"]
        assert (stats.running, stats.workers) == (0, 0)
        assert bench.line.left == ["w1"]
