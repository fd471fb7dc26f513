"""The echo engine's faults and pace; what it shares with other engines is in tests/contracts/engines."""

import asyncio

import structlog

from core.catalog import Tier
from core.clock import SystemClock
from tests.contracts.engines.run import Run, job
from tests.unit.loop_bench import MODEL, until
from workers.engines.echo import DIED, EchoEngine


async def start(die=None, **echo):
    tier = Tier(name="p", engine="echo", weights="-", context_tokens=2_048, price={"input": "0"}, echo=echo)
    engine = EchoEngine(tier, "-", SystemClock(), structlog.get_logger(), die or (lambda _code: None))
    await engine.start()
    return Run(engine)


def asking(text, **sampling):
    return job(prompt=tuple(MODEL.encode(f"[INST] Please {text} now [/INST]")), **({"max_tokens": 1_000} | sampling))


async def test_an_answer_comes_in_one_step_when_there_is_no_pace():
    run = await start()
    run.engine.submit(job(n=2, max_tokens=64))
    run.keep(await anext(run.engine.steps()))
    assert [end[0].reason for end in run.ends.values()] == ["stop", "stop"]


async def test_answers_are_words_and_depend_on_prompt_seed_and_choice():
    run = await start()
    answers = await run.answer(
        job("a", n=2, max_tokens=40), job("b", seed=8, max_tokens=40), job("c", prompt=(1, 2, 3), max_tokens=40)
    )
    assert len({ids for ids, _ in answers.values()}) == 4
    assert all(word.isalpha() for word in MODEL.decode(list(answers["a", 0][0])).split())


async def test_a_prompt_may_ask_for_length_and_pace():
    run = await start(faults=True)
    answers = await run.answer(asking("[[echo:tokens=300]] [[echo:pace=5000]]"))
    assert len(answers["r", 0][0]) == 300


async def test_failing_after_some_tokens():
    run = await start(faults=True)
    ids, reason = (await run.answer(asking("[[echo:fail=5]]")))["r", 0]
    assert (len(ids), reason) == (5, "error")


async def test_dying_in_the_middle_of_an_answer():
    died = []
    run = await start(died.append, faults=True)
    run.engine.submit(asking("[[echo:tokens=10]] [[echo:die]]"))
    steps = asyncio.create_task(run.until(lambda: bool(died)))
    await until(lambda: bool(died))
    assert died[0] == DIED
    assert len(run.ids["r", 0]) == 5
    await run.engine.close()
    steps.cancel()
    await asyncio.wait([steps])


async def test_stalling_stops_every_request_and_the_steps():
    run = await start(faults=True)
    run.engine.submit(asking("[[echo:stall=2]]"))
    pump = asyncio.create_task(run.until(lambda: False))
    await until(lambda: len(run.ids["r", 0]) == 2)
    await until(lambda: run.engine._stalled)
    before = run.engine.stats().last_step_s
    run.engine.submit(job("other"))
    run.engine.abort("r")
    await asyncio.sleep(0.05)  # long enough for a step, if there were any
    assert run.ids["other", 0] == []
    assert run.ends["r", 0] == []
    assert run.engine.stats().last_step_s == before
    pump.cancel()
    await asyncio.wait([pump])


async def test_prompts_are_not_obeyed_unless_the_tier_says_so():
    run = await start()
    ids, reason = (await run.answer(asking("[[echo:fail=0]] [[echo:tokens=3]]")))["r", 0]
    assert (len(ids), reason) == (32, "stop")
