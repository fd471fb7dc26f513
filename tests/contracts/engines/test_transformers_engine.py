"""What only a real model can show: its tokens against a plain `generate`, seeds in any batch, and a dying thread."""

import asyncio
import threading
import time
from dataclasses import replace

import pytest

from tests.contracts.engines.models import EOS, GREEDY, oracle, prompt, running
from tests.contracts.engines.run import WAIT_S, job
from workers.engines import cb_manager
from workers.engines.base import FAILED, ChoiceEnd, EngineFailedError

NAMES = ("standin-tiny", "standin-small")


def engine_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "engine"]


@pytest.mark.parametrize("name", NAMES)
async def test_greedy_is_what_plain_generate_gives(models, name):
    """Also for a prompt that is prefilled in several steps, beside others that decode."""
    prompts = [prompt(5, 1), prompt(60, 2), prompt(300, 3)]
    async with running(models / name) as run:
        jobs = [job(f"r{i}", prompt=ids, max_tokens=20, **GREEDY) for i, ids in enumerate(prompts)]
        got = await run.answer(*jobs)
    assert [list(got[f"r{i}", 0][0]) for i in range(3)] == [oracle(models / name, ids, 20) for ids in prompts]


@pytest.mark.parametrize("name", NAMES)
async def test_a_seed_gives_the_same_tokens_alone_and_among_others(models, name):
    kinds = [
        {"temperature": 0.7, "seed": 11, "n": 2},
        {"temperature": 1.2, "seed": 11, "top_p": 0.8},
        {"temperature": 0.7, "seed": None},
        GREEDY,
        {"temperature": 0.9, "seed": 4, "frequency_penalty": 0.7},
        {"temperature": 0.9, "seed": 4, "presence_penalty": -0.5},
        {"temperature": 1.0, "seed": 5, "min_tokens": 8},
        {"temperature": 1.0, "seed": 6},
    ]
    jobs = [job(f"r{i}", prompt=prompt(10 + 9 * i, i), max_tokens=24, **kind) for i, kind in enumerate(kinds)]
    async with running(models / name) as run:
        together = await run.answer(*jobs)
    async with running(models / name) as run:
        for each in jobs:
            alone = await run.answer(each)
            assert alone == {key: together[key] for key in alone}
    assert together["r0", 0] != together["r0", 1], "the choices of one request differ"


async def test_a_choice_continues_as_if_never_interrupted(models):
    kind = {"prompt": prompt(20), "max_tokens": 30, "temperature": 1.0, "seed": 9, "frequency_penalty": 0.5, "n": 2}
    async with running(models / "standin-tiny") as run:
        whole = await run.answer(job("a", **kind))
        rest = await run.answer(job("b", emitted=(whole["a", 0][0][:13], ()), **kind))
    assert (rest["b", 0][0], rest["b", 1]) == (whole["a", 0][0][13:], whole["a", 1])


async def test_the_end_of_the_text_is_a_stop_and_not_a_token(models, tmp_path):
    """With the model's own third token declared as its end."""
    ids = oracle(models / "standin-tiny", prompt(12), 3)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(models / "standin-tiny" / name)
    (tmp_path / "generation_config.json").write_text(f'{{"bos_token_id": 1, "eos_token_id": [{EOS}, {ids[2]}]}}')
    async with running(tmp_path) as run:
        answer = await run.answer(job("a", prompt=prompt(12), **GREEDY))
        longer = await run.answer(job("b", prompt=prompt(12), min_tokens=6, **GREEDY))
    assert answer["a", 0] == (tuple(ids[:2]), "stop")
    assert len(longer["b", 0][0]) >= 6
    assert ids[2] not in longer["b", 0][0]


@pytest.mark.parametrize(
    ("prompt_tokens", "emitted", "given"), [(60, 0, 4), (60, 3, 1), (64, 0, 0), (10, 10, 0), (10, 4, 6)]
)
async def test_max_tokens_and_the_context_end_with_length(models, prompt_tokens, emitted, given):
    before = (tuple(range(5, 5 + emitted)),)
    async with running(models / "standin-tiny", context_tokens=64) as run:
        answer = await run.answer(job(prompt=prompt(prompt_tokens), emitted=before, max_tokens=10, min_tokens=10))
    assert (len(answer["r", 0][0]), answer["r", 0][1]) == (given, "length")


async def test_more_than_the_cache_holds_is_computed_again_and_comes_out_right(models):
    """One context of cache for six requests that need nearly one each."""
    kind = {"max_tokens": 190, "min_tokens": 190, "temperature": 0.8}
    jobs = [job(f"r{i}", prompt=prompt(30, i), seed=i, **kind) for i in range(6)]
    async with running(models / "standin-tiny", context_tokens=256, slots=4) as run:
        together = await run.answer(*jobs)
        alone = await run.answer(*(replace(each, request_id=f"{each.request_id} alone") for each in jobs[4:5]))
        last = await run.answer(replace(jobs[5], request_id="r5 alone"))
    assert [len(together[f"r{i}", 0][0]) for i in range(6)] == [190] * 6
    assert together["r4", 0] == alone["r4 alone", 0]
    assert together["r5", 0] == last["r5 alone", 0]


async def test_an_aborted_request_gives_its_cache_back(models):
    """Each of them fills the cache, so that the next could not run beside it."""
    async with running(models / "standin-tiny", context_tokens=256, slots=4) as run:
        for i in range(5):
            run.engine.submit(job(f"r{i}", prompt=prompt(200, i), max_tokens=56, min_tokens=56))
            await run.until(lambda i=i: bool(run.ids[f"r{i}", 0]))
            run.engine.abort(f"r{i}")
        answers = await run.answer(job("last", prompt=prompt(200), max_tokens=56, min_tokens=56))
    assert len(answers["last", 0][0]) == 56


@pytest.mark.parametrize(
    "bad",
    [
        job("bad", prompt=(1, 32_000)),
        job("bad", prompt=(1, -1)),
        job("bad", prompt=(1, 5), emitted=((32_000,),)),
        job("bad", prompt=()),
        job("bad", prompt=prompt(513)),
        replace(job("bad"), grammar="{}"),
        replace(job("bad", emitted=((22557,),)), grammar='start: "no"'),
    ],
)
async def test_a_job_that_cannot_be_served_fails_alone(models, bad):
    async with running(models / "standin-tiny") as run:
        answers = await run.answer(job("good"), bad)
    assert answers["bad", 0] == ((), "error")
    assert answers["good", 0][1] != "error"


async def test_a_job_that_runs_already_is_refused(models):
    async with running(models / "standin-tiny") as run:
        run.engine.submit(job(max_tokens=400, min_tokens=400))
        run.engine.submit(job())
        await run.until(lambda: bool(run.ends["r", 0]))
    assert run.ends["r", 0][0].error == "The job is already running."


async def test_a_dying_thread_fails_all_its_requests_and_then_the_engine(models, monkeypatch):
    real, steps = cb_manager.choose, []

    def break_at_the_fifth(*arguments: object) -> None:
        steps.append(arguments)
        if len(steps) == 5:
            raise RuntimeError("out of memory")
        real(*arguments)

    monkeypatch.setattr(cb_manager, "choose", break_at_the_fifth)
    async with running(models / "standin-tiny") as run:
        jobs = [job(name, n=2, max_tokens=100, min_tokens=100) for name in ("a", "b")]
        answers = await run.answer(*jobs)
        assert [reason for _, reason in answers.values()] == ["error"] * 4
        assert run.engine.stats().running == 0
        with pytest.raises(EngineFailedError, match="out of memory"):
            await run.until(lambda: False)
        run.engine.submit(job("late"))
        assert await anext(run.engine.steps()) == [ChoiceEnd("late", 0, "error", FAILED)]
    assert engine_threads() == []


async def test_a_hung_thread_shows_in_the_stats_and_does_not_hold_up_the_end(models, monkeypatch):
    real, hung, go_on = cb_manager.choose, threading.Event(), threading.Event()

    def hang(*arguments: object) -> None:
        hung.set()
        go_on.wait(WAIT_S)
        real(*arguments)

    monkeypatch.setattr(cb_manager, "choose", hang)
    monkeypatch.setattr("workers.engines.transformers_engine.CLOSE_S", 0.1)
    async with running(models / "standin-tiny") as run:
        run.engine.submit(job())
        assert await asyncio.to_thread(hung.wait, WAIT_S)
        before = run.engine.stats()
        assert before.running == 1
        await asyncio.sleep(0.2)  # in which a step of this model would have ended
        assert run.engine.stats() == before
    [thread] = engine_threads()
    assert thread.daemon, "a process can exit although it hangs"
    go_on.set()
    await asyncio.to_thread(thread.join, WAIT_S)
    assert not thread.is_alive()


async def test_an_idle_engine_costs_next_to_nothing(models):
    async with running(models / "standin-tiny") as run:
        await run.answer(job())
        begun_s = time.process_time()
        await asyncio.sleep(1.0)
        assert time.process_time() - begun_s < 0.2  # this process's own processor time, whatever else runs


async def test_closing_ends_the_thread_with_work_open(models):
    async with running(models / "standin-tiny") as run:
        run.engine.submit(job(max_tokens=400, min_tokens=400))
        await run.until(lambda: bool(run.ids["r", 0]))
        await run.silence()
    assert run.ends["r", 0] == []
    assert engine_threads() == []
