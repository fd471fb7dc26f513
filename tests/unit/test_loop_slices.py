"""Output that is covered slice by slice, and answers that outlive their gateway."""

from dataclasses import replace

import pytest

from core.queue.base import Claim, Outcome, Repeated
from core.queue.executor import Ended
from core.queue.held import Held
from core.wire import CHAT, End, Job, Usage
from tests.unit.loop_bench import Bench, settings, until

PLENTY_NANO = 10**9


async def give(bench: Bench, amount_nano: int) -> None:
    assert await bench.funds.give(f"gift-{amount_nano}", "o", 1, amount_nano)


def asked(bench: Bench) -> list[int]:
    return [extension.output_tokens for extension in bench.line.extensions]


async def test_a_long_answer_is_covered_slice_by_slice():
    async with Bench(answer_tokens=3_000) as bench:
        await give(bench, PLENTY_NANO)
        await bench.ask("r", covered=1_024, max_tokens=3_500)
        end = await bench.end("r")
        assert (end.finish_reasons, end.usage.completion_tokens, end.ended_by) == (("stop",), 3_000, None)
        assert asked(bench)[:2] == [2_048, 3_072]
        bench.pieces("r")
        level = await bench.funds.level("o")
        assert (level.available_nano, level.reserved_nano) == (PLENTY_NANO - end.cost_nano, 0)
        assert end.cost_nano == end.usage.prompt_tokens + 3_000


async def test_it_asks_before_the_slice_is_used_up():
    async with Bench(tokens_per_s=400, answer_tokens=120) as bench:
        await give(bench, PLENTY_NANO)
        await bench.ask("r", covered=100, max_tokens=200)
        await until(lambda: bool(bench.line.extensions))
        assert 75 <= sum(len(piece.token_ids) for piece in bench.pieces("r")) < 100
        assert (await bench.end("r")).usage.completion_tokens == 120
        assert asked(bench) == [200]


async def test_an_answer_within_its_first_slice_asks_for_nothing():
    async with Bench(answer_tokens=50) as bench:
        await give(bench, PLENTY_NANO)
        await bench.ask("r", covered=100, max_tokens=100)
        assert (await bench.end("r")).usage.completion_tokens == 50
        assert asked(bench) == []


async def test_money_ends_it_at_the_exact_token():
    async with Bench(answer_tokens=3_000) as bench:
        await give(bench, 2_000)
        await bench.ask("r", covered=1_024, max_tokens=3_500)
        end = await bench.end("r")
        covered = 2_000 - end.usage.prompt_tokens
        assert (end.finish_reasons, end.ended_by, end.error) == (("length",), "credit", None)
        assert end.usage.completion_tokens == sum(len(piece.token_ids) for piece in bench.pieces("r")) == covered
        assert end.cost_nano == 2_000
        assert (await bench.usage("r")).outcome == Outcome.FINISHED
        assert (await bench.funds.level("o")).available_nano == 0
        assert bench.engine.stats().running == 0


async def test_what_billing_gives_in_time_carries_it_on():
    async with Bench(answer_tokens=3_000) as bench:
        await give(bench, 2_000)
        await bench.ask("r", covered=1_024, max_tokens=3_500)
        (hunger,) = await bench.funds.hungry(20)
        assert hunger.organisation == "o"
        await give(bench, hunger.needed_nano)
        while (await bench.funds.level("o")).reserved_nano:  # as the lender does
            for again in await bench.funds.hungry(0.1):
                await give(bench, again.needed_nano)
        end = await bench.end("r")
        assert (end.finish_reasons, end.usage.completion_tokens, end.ended_by) == (("stop",), 3_000, None)


async def test_while_redis_is_away_what_is_not_covered_waits():
    async with Bench(tokens_per_s=1_000, answer_tokens=300) as bench:
        await give(bench, PLENTY_NANO)
        await bench.ask("r", covered=100, max_tokens=400)
        await bench.begun("r")
        bench.line.cut = True
        await until(lambda: bench.engine.stats().running == 0)
        bench.line.cut = False
        end = await bench.end("r")
        assert (end.finish_reasons, end.usage.completion_tokens, end.ended_by) == (("stop",), 300, None)
        bench.pieces("r")


async def test_while_no_epoch_is_open_it_waits():
    async with Bench(answer_tokens=300) as bench:
        await give(bench, PLENTY_NANO)
        bench.line.cut = True
        await bench.ask("r", covered=100, max_tokens=400)
        bench.broker.restart()
        bench.line.cut = False
        await until(lambda: len(bench.line.extensions) > 5)
        assert await bench.funds.open_epoch(2)
        assert await bench.funds.give("new", "o", 2, PLENTY_NANO)
        end = await bench.end("r")
        assert (end.finish_reasons, end.usage.completion_tokens, end.ended_by) == (("stop",), 300, None)
        assert (await bench.usage("r")).epoch == 2


async def test_what_is_no_longer_its_own_is_stopped():
    async with Bench(tokens_per_s=400, answer_tokens=2_000, loop=settings(renew_s=30)) as bench:
        await give(bench, PLENTY_NANO)
        await bench.ask("r", covered=40, max_tokens=4_000)
        await bench.begun("r")
        await bench.gateway.cancel("r", 0, Outcome.FAILED)
        await until(lambda: bench.loop.running == 0)
        assert bench.engine.stats().running == 0
        assert (await bench.usage("r")).outcome == Outcome.FAILED


async def test_an_answer_that_is_kept_outlives_its_gateway_and_is_paid_when_it_is_fetched():
    async with Bench(tokens_per_s=400, answer_tokens=100) as bench:
        await give(bench, PLENTY_NANO)
        claim = Claim("key", "body")
        await bench.ask("r", "hello", covered=200, max_tokens=200, claim=claim)
        await bench.begun("r")
        await bench.deaf()
        usage = await bench.usage("r")
        assert (usage.outcome, usage.cost_nano, usage.decoded_tokens) == (Outcome.GATEWAY_LOST, 0, 100)
        assert (await bench.funds.level("o")).available_nano == PLENTY_NANO
        await bench.gateway.open()
        assert await bench.ask("again", "hello", covered=200, max_tokens=200, claim=claim) == Repeated("r", True, False)
        end = (await bench.gateway.standing("r")).end
        assert (len(end.answers[0].text.split()), end.finish_reasons) == (100, ("stop",))
        assert end.cost_nano == end.usage.prompt_tokens + 100
        assert (await bench.funds.level("o")).available_nano == PLENTY_NANO - end.cost_nano


JOB = Job("r", "g", "o", "w", "t", CHAT, 0, 10, 10)


@pytest.mark.parametrize(
    ("reasons", "told", "ended_by"),
    [(("stop", "error"), ("stop", "length"), "credit"), (("stop", "length"), ("stop", "length"), None)],
)
def test_only_choices_that_were_cut_short_say_so(reasons, told, ended_by):
    held = Held(JOB, "w1", 0.0, outcome=Outcome.FINISHED, ended_by="credit")
    finish = held.last_word(Ended(End("r", 1, reasons, Usage(10, 5))))
    assert (finish.outcome, finish.end.finish_reasons, finish.end.ended_by) == (Outcome.FINISHED, told, ended_by)


@pytest.mark.parametrize(
    ("outcome", "failed", "expected"),
    [
        (None, False, Outcome.GATEWAY_LOST),
        (Outcome.FINISHED, False, Outcome.GATEWAY_LOST),
        (Outcome.TIMEOUT, False, Outcome.TIMEOUT),
        (None, True, Outcome.FAILED),
    ],
)
def test_what_nobody_reads_is_not_finished(outcome, failed, expected):
    held = Held(replace(JOB, keep_answer=True), "w1", 0.0, outcome=outcome, unread=True)
    finish = held.last_word(Ended(End("r", 1, ("stop",), Usage(10, 5)), failed))
    assert (finish.outcome, finish.keep_answer) == (expected, True)
