"""From an engine's tokens to pieces and ends: stop strings, choices, continued answers, counts."""

import asyncio
from dataclasses import replace

import pytest
import structlog

from core.catalog import Tier
from core.clock import SystemClock
from core.experts import ExpertCounts, ExpertSample, MemoryExpertLog
from core.queue.executor import Ended
from core.wire import CHAT, Job, Piece, Sampling
from tests.unit.loop_bench import MODEL, VOCABULARY
from workers.engines.base import ChoiceEnd, Tokens, routed
from workers.engines.echo import EchoEngine
from workers.experts import ExpertReporter
from workers.generator import Generator
from workers.text import Vocabulary

WAIT_S = 20
V3_TOOL_CALLS = 5


def job(prompt="hello", emitted=(), **sampling):
    prompt_ids = tuple(MODEL.encode(prompt))
    return Job(
        request_id="r",
        submitter="g",
        organisation="o",
        workspace="w",
        tier="pool",
        kind=CHAT,
        deadline_ms=2**50,
        prompt_tokens=len(prompt_ids),
        cost_expected=1,
        attempt=3,
        prompt_ids=prompt_ids,
        emitted_ids=emitted,
        sampling=Sampling(**({"max_tokens": 500} | sampling)),
    )


async def run(job, engine=None, vocabulary=VOCABULARY, tokenizer="v1", **echo):
    """The pieces by choice, and the end."""
    price = {"input": "0"}
    options = {"answer_tokens": 30, "faults": True, **echo}
    names = {"name": "pool", "engine": "echo", "weights": "-", "tokenizer": tokenizer}
    tier = Tier(context_tokens=2_048, price=price, echo=options, **names)
    log = structlog.get_logger()
    generator = Generator((engine or EchoEngine)(tier, "-", SystemClock(), log), vocabulary, log)
    await generator.start()
    generator.submit(job)
    pieces: dict[int, list[Piece]] = {choice: [] for choice in range(job.sampling.n)}
    async with asyncio.timeout(WAIT_S):
        async for step in generator.steps():
            for event in step:
                if isinstance(event, Ended):
                    assert generator.stats().running == 0
                    await generator.close()
                    return pieces, event
                pieces[event.choice].append(event)
    raise AssertionError("no end")


def text(pieces):
    return "".join(piece.text for piece in pieces)


def ids(pieces):
    return tuple(i for piece in pieces for i in piece.token_ids)


@pytest.mark.parametrize("pace", [0, 2_000])
async def test_a_stop_string_ends_its_choice_and_no_other(pace):
    plain, _ = await run(job(n=3))
    words = text(plain[1]).split()
    stop = words[9][1:] + " " + words[10][:2]  # begins and ends in the middle of tokens
    pieces, ended = await run(job(n=3, stop=(stop,)), tokens_per_s=pace)
    assert text(pieces[1]) == text(plain[1])[: text(plain[1]).index(stop)]
    assert [text(pieces[i]) for i in (0, 2)] == [text(plain[i]) for i in (0, 2)]
    assert ended.end.finish_reasons == ("stop", "stop", "stop")
    assert not ended.failed
    counts = [len(ids(pieces[i])) for i in range(3)]
    assert counts == [30, 11, 30]  # up to the token that completed the stop string
    assert ended.end.usage.completion_tokens == sum(counts)


async def test_indices_count_the_tokens_and_the_attempt_is_told():
    pieces, ended = await run(job(), tokens_per_s=1_000)
    assert [piece.first_index for piece in pieces[0]] == [
        sum(len(before.token_ids) for before in pieces[0][:i]) for i in range(len(pieces[0]))
    ]
    assert {piece.attempt for piece in pieces[0]} == {3} == {ended.end.attempt}
    assert text(pieces[0]) == MODEL.decode(list(ids(pieces[0])))


async def test_length_is_told_from_stop():
    _, ended = await run(job(max_tokens=4))
    assert (ended.end.finish_reasons, ended.end.usage.completion_tokens) == (("length",), 4)


@pytest.mark.parametrize("stop", [(), ("zzzz",)])
async def test_a_continued_answer_has_the_same_text_and_usage(stop):
    whole, first = await run(job(n=2, stop=stop))
    begun = (ids(whole[0])[:7], ids(whole[1])[:12])
    rest, second = await run(job(n=2, stop=stop, emitted=begun))
    assert second.end == first.end
    for choice in range(2):
        before = MODEL.decode(list(begun[choice]))
        assert before + text(rest[choice]) == text(whole[choice])
        assert rest[choice][0].first_index == len(begun[choice])


async def test_an_answer_that_had_reached_its_stop_string_is_only_ended():
    whole, _ = await run(job())
    begun = ids(whole[0])[:5]
    stop = MODEL.decode(list(begun)).split()[-1]
    pieces, ended = await run(job(stop=(stop,), emitted=(begun,)), tokens_per_s=1_000)
    assert pieces[0] == []
    assert (ended.end.finish_reasons, ended.end.usage.completion_tokens) == (("stop",), 5)


async def test_one_failed_choice_fails_the_request():
    _, ended = await run(job("[[echo:fail=3]]", n=2), tokens_per_s=1_000)
    assert ended.failed
    assert "error" in ended.end.finish_reasons
    assert ended.end.error


class CachingEngine(EchoEngine):
    """Says that it had part of the prompt: for the second choice all of it."""

    async def steps(self):
        async for step in super().steps():
            yield [
                ChoiceEnd(o.request_id, o.choice, o.reason, cached_tokens=3 + o.choice)
                if isinstance(o, ChoiceEnd)
                else o
                for o in step
            ]


async def test_the_prompt_is_cached_only_as_far_as_no_choice_computed_it():
    _, ended = await run(job(n=2), engine=CachingEngine)
    assert ended.end.usage.cached_tokens == 3


async def test_the_whole_answer_is_kept_if_asked_for():
    pieces, ended = await run(replace(job(n=2, stop=("zzzz",)), keep_answer=True), tokens_per_s=2_000)
    assert [answer.text for answer in ended.end.answers] == [text(pieces[0]), text(pieces[1])]
    assert {(answer.token_ids, answer.logprobs) for answer in ended.end.answers} == {((), ())}
    _, plain = await run(job(n=2))
    assert plain.end.answers == ()


async def test_ids_and_log_probabilities_are_kept_if_asked_for():
    pieces, ended = await run(replace(job(logprobs=1), keep_answer=True), tokens_per_s=2_000)
    (answer,) = ended.end.answers
    assert answer.token_ids == ids(pieces[0])
    assert answer.logprobs == tuple(report for piece in pieces[0] for report in piece.logprobs)
    assert len(answer.logprobs) == 30


async def test_a_kept_answer_has_the_text_of_an_earlier_attempt():
    whole, _ = await run(job())
    begun = ids(whole[0])[:7]
    _, ended = await run(replace(job(emitted=(begun,)), keep_answer=True))
    assert ended.end.answers[0].text == text(whole[0])


async def test_what_an_engine_says_is_wrong_reaches_the_caller():
    _, ended = await run(replace(job(), grammar='start: "x"'))
    assert ended.failed
    assert ended.end.error == "The echo engine knows no grammars."


class CallingEngine(EchoEngine):
    """Begins its answer with the control token that begins tool calls, of the v3 vocabulary."""

    async def steps(self):
        begun = False
        async for step in super().steps():
            if not begun:
                yield [Tokens("r", 0, (V3_TOOL_CALLS,)), *step]
                begun = True
            else:
                yield step


@pytest.mark.parametrize(("marked", "begins"), [(True, "[TOOL_CALLS]"), (False, "")])
async def test_the_token_that_begins_tool_calls_is_written_out_if_asked_for(marked, begins):
    vocabulary = Vocabulary.load("v3")
    assert vocabulary.controls[V3_TOOL_CALLS] == "[TOOL_CALLS]"
    one = replace(job(), tool_marker=marked)
    pieces, _ = await run(one, engine=CallingEngine, vocabulary=vocabulary, tokenizer="v3")
    assert text(pieces[0]).startswith(begins)
    assert len(ids(pieces[0])) == 31
    assert "[" not in text(pieces[0])[len(begins) :]


async def test_an_engine_that_breaks_breaks_the_steps():
    class BrokenEngine(EchoEngine):
        async def steps(self):
            yield [ChoiceEnd("r", 0, "error", "The engine failed.")]
            raise RuntimeError("out of memory")

    log = structlog.get_logger()
    tier = Tier(name="pool", engine="echo", weights="-", context_tokens=2_048, price={"input": "0"})
    generator = Generator(BrokenEngine(tier, "-", SystemClock(), log), VOCABULARY, log)
    await generator.start()
    generator.submit(job())
    steps = generator.steps()
    (ended,) = await anext(steps)
    assert ended.failed
    with pytest.raises(RuntimeError, match="out of memory"):
        await anext(steps)


async def test_whoever_takes_no_steps_holds_the_engine_back():
    taken = []

    class CountingEngine(EchoEngine):
        async def steps(self):
            async for step in super().steps():
                taken.append(step)
                yield step

    log = structlog.get_logger()
    echo = {"answer_tokens": 1_000, "tokens_per_s": 10_000.0}
    tier = Tier(name="pool", engine="echo", weights="-", context_tokens=2_048, price={"input": "0"}, echo=echo)
    generator = Generator(CountingEngine(tier, "-", SystemClock(), log), VOCABULARY, log)
    await generator.start()
    generator.submit(job())
    steps = generator.steps()
    await anext(steps)
    await asyncio.sleep(0.05)  # in which several steps would be due
    assert len(taken) <= 2
    await steps.aclose()
    await generator.close()


class Choosy(EchoEngine):
    """With experts, it says, if it is asked to count them."""

    def submit(self, job, *, count_experts=False):
        super().submit(job)
        if count_experts:
            self._out.append(routed(job, 0, ExpertCounts((0,), ((2, 2),))))


@pytest.mark.parametrize("one_in", [1, 0])
async def test_how_experts_were_chosen_is_reported_for_the_requests_that_are_sampled(one_in):
    log, expert_log = structlog.get_logger(), MemoryExpertLog(SystemClock())
    tier = Tier(name="pool", engine="echo", weights="-", context_tokens=2_048, price={"input": "0"})
    reporter = ExpertReporter(expert_log, one_in, log)
    generator = Generator(Choosy(tier, "-", SystemClock(), log), VOCABULARY, log, reporter)
    await generator.start()
    generator.submit(job())
    async with asyncio.timeout(WAIT_S):
        async for step in generator.steps():
            if any(isinstance(event, Ended) for event in step):
                break
    await generator.close()
    found = [sample for _, sample in await expert_log.read("0-0", 10)]
    assert found == [ExpertSample("pool", "o", "w", ExpertCounts((0,), ((2, 2),)))] * one_in
