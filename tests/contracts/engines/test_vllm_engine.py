"""What only vLLM can show: its cache, its priorities, its process. Run by `make vllm-test`."""

import asyncio
import multiprocessing
import os
import signal
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from core.errors import SetupError
from core.wire import BATCH
from tests.contracts.engines.models import EOS, GREEDY, MODEL_ENGINE, new_engine, oracle, prompt, running
from tests.contracts.engines.run import WAIT_S, Run, job
from workers.engines.base import FAILED, ChoiceEnd, EngineFailedError
from workers.engines.sampling import Draw, choose

BLOCK_TOKENS = 128  # of vLLM's cache on a CPU
KINDS = [
    {"temperature": 0.7, "seed": 11, "n": 2},
    {"temperature": 1.2, "seed": 11, "top_p": 0.8},
    {"temperature": 0.7, "seed": None},
    GREEDY,
    {"temperature": 0.9, "seed": 4, "frequency_penalty": 0.7},
    {"temperature": 0.9, "seed": 4, "presence_penalty": -0.5},
    {"temperature": 1.0, "seed": 5, "min_tokens": 8},
    {"temperature": 1.0, "seed": 6},
]


async def test_a_mixture_of_experts_gives_what_plain_generate_gives_and_seeds_hold(models):
    folder = models / "standin-small"
    jobs = [job(f"r{i}", prompt=prompt(10 + 9 * i, i), max_tokens=24, **kind) for i, kind in enumerate(KINDS)]
    async with running(folder) as run:
        together = await run.answer(*jobs)
        for each in jobs:
            run.forget()
            alone = await run.answer(each)
            assert alone == {key: together[key] for key in alone}
    assert together["r0", 0] != together["r0", 1], "the choices of one request differ"
    assert list(together["r3", 0][0]) == oracle(folder, jobs[3].prompt_ids, 24)


async def test_a_prompt_of_several_steps_gives_what_plain_generate_gives(model_run, models):
    prompts = [prompt(5, 1), prompt(60, 2), prompt(300, 3)]
    got = await model_run.answer(*[job(f"r{i}", prompt=ids, max_tokens=20, **GREEDY) for i, ids in enumerate(prompts)])
    expected = [oracle(models / "standin-tiny", ids, 20) for ids in prompts]
    assert [list(got[f"r{i}", 0][0]) for i in range(3)] == expected


async def test_seeds_mean_what_they_mean_in_the_transformers_engine(model_run, models):
    """Each is drawn from the same numbers; so near each other are the scores that the texts are the same."""
    jobs = [job(f"r{i}", prompt=prompt(10 + 9 * i, i), max_tokens=12, **kind) for i, kind in enumerate(KINDS)]
    ours = await model_run.answer(*jobs)
    drawn = await asyncio.to_thread(_drawn_by_hand, models / "standin-tiny", jobs)
    assert {key: ids for key, (ids, _) in ours.items()} == drawn


def _drawn_by_hand(folder, jobs):
    model, out = AutoModelForCausalLM.from_pretrained(folder), {}
    for one in jobs:
        for choice in range(one.sampling.n):
            draw, ids = Draw(one.sampling, one.request_id, choice, (), one.prompt_ids), []
            while len(ids) < one.sampling.max_tokens:
                with torch.no_grad():
                    scores = model(torch.tensor([[*one.prompt_ids, *ids]])).logits[0, -1:].float()
                choose(scores, [draw], (EOS,))
                token_id = int(scores.argmax())
                if token_id == EOS:
                    break
                ids.append(token_id)
                draw.append(token_id)
            out[one.request_id, choice] = tuple(ids)
    return out


async def test_what_is_cached_is_told_and_never_shared_between_organisations(model_run):
    asked = job("first", prompt=prompt(2 * BLOCK_TOKENS + 20, 40), max_tokens=2)
    cached = []
    for one in (asked, replace(asked, request_id="again"), replace(asked, request_id="other", organisation="p")):
        await model_run.answer(one)
        cached.append(model_run.ends[one.request_id, 0][0].cached_tokens)
    assert cached == [0, 2 * BLOCK_TOKENS, 0]
    cheap = replace(asked, request_id="cheap", prompt_tokens=7)
    await model_run.answer(cheap)
    assert model_run.ends["cheap", 0][0].cached_tokens == 7, "never more than is billed"


async def test_interactive_requests_go_before_those_of_batches(model_run):
    for i in range(16):  # all slots
        model_run.engine.submit(job(f"busy{i}", prompt=prompt(9, i), max_tokens=60 + 10 * i, min_tokens=60 + 10 * i))
    await model_run.until(lambda: all(model_run.ids[f"busy{i}", 0] for i in range(16)))
    model_run.engine.submit(replace(job("batch", max_tokens=4, min_tokens=4), band=BATCH))
    model_run.engine.submit(job("person", max_tokens=4, min_tokens=4))
    await model_run.until(lambda: bool(model_run.ends["person", 0]))
    assert not model_run.ends["batch", 0]
    await model_run.until(lambda: bool(model_run.ends["batch", 0]))


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
async def test_a_job_that_cannot_be_served_fails_alone(model_run, bad):
    answers = await model_run.answer(job("good"), bad)
    assert answers["bad", 0] == ((), "error")
    assert answers["good", 0][1] != "error"


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


async def test_more_than_the_cache_holds_is_computed_again_and_comes_out_right(models):
    """Cache for two of six requests: vLLM puts the others aside in the middle of their answers."""
    kind = {"max_tokens": 190, "min_tokens": 190, "temperature": 0.8, "frequency_penalty": 0.3}
    jobs = [job(f"r{i}", prompt=prompt(30, i), seed=i, **kind) for i in range(6)]
    options = {"args": {"num_gpu_blocks_override": 5, "enable_prefix_caching": False}}
    async with running(models / "standin-tiny", context_tokens=256, vllm=options) as run:
        together = await run.answer(*jobs)
        alone = [await run.answer(replace(each, request_id=f"{each.request_id} alone")) for each in jobs]
    assert [len(together[f"r{i}", 0][0]) for i in range(6)] == [190] * 6
    assert [one[f"r{i} alone", 0] for i, one in enumerate(alone)] == [together[f"r{i}", 0] for i in range(6)]


async def test_the_death_of_its_process_fails_all_requests_and_then_the_engine(models):
    engine = new_engine(MODEL_ENGINE, models / "standin-tiny")
    before = {child.pid for child in multiprocessing.active_children()}
    await engine.start()
    run = Run(engine)
    try:
        for name in ("a", "b"):
            engine.submit(job(name, n=2, max_tokens=400, min_tokens=400))
        await run.until(lambda: all(run.ids[name, i] for name in ("a", "b") for i in range(2)))
        [core] = [child for child in multiprocessing.active_children() if child.pid not in before]
        os.kill(core.pid, signal.SIGKILL)
        await run.until(lambda: all(run.ends[name, i] for name in ("a", "b") for i in range(2)))
        assert {run.ends[name, i][0].reason for name in ("a", "b") for i in range(2)} == {"error"}
        assert engine.stats().running == 0
        with pytest.raises(EngineFailedError):
            await run.until(lambda: False)
        engine.submit(job("late"))
        async with asyncio.timeout(WAIT_S):
            assert await anext(engine.steps()) == [ChoiceEnd("late", 0, "error", FAILED)]
    finally:
        await engine.close()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vllm": {"args": {"model": "other"}}}, "vllm.args cannot set model"),
        ({"vllm": {"args": {"logits_processors": "other"}}}, "vllm.args cannot set logits_processors"),
        ({"vllm": {"args": {"no_such_thing": 1}}}, "vLLM does not take its configuration"),
        ({"vllm": {"quantisation": "no-such-thing"}}, "vLLM does not take its configuration"),
        ({"device": "cuda"}, "device is cuda, but this vLLM is for cpu"),
        ({"context_tokens": 1_000_000}, "vLLM does not take its configuration"),
    ],
)
async def test_what_vllm_cannot_do_is_one_sentence(models, changes, says):
    engine = new_engine(MODEL_ENGINE, models / "standin-tiny", **changes)
    with pytest.raises(SetupError, match=says):
        await engine.start()
    await engine.close()
