"""How experts were chosen: over every engine that runs a mixture of them."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from core.experts import ExpertSample
from tests.contracts.engines.models import GREEDY, MODEL_ENGINE, prompt, running
from tests.contracts.engines.run import job

LAYERS, EXPERTS, TOP_K = 2, 8, 2  # of the stand-in for mistral-small
OF_CACHE = {"vllm": {"args": {"enable_prefix_caching": False}}} if MODEL_ENGINE == "vllm" else {}


@pytest.fixture
async def mixture(models):
    async with running(models / "standin-small", **OF_CACHE) as run:
        yield run


def counted(run, request_id, choice=0):
    return run.routed[request_id, choice].sample.experts


def computed(one, answers):
    """Tokens that the model computed for the first choice: all but the last one, which nothing follows."""
    ids, reason = answers[one.request_id, 0]
    return len(one.prompt_ids) + len(ids) - (reason == "length")


async def test_every_computed_token_is_counted_in_each_layer_once_for_each_of_its_experts(mixture):
    """Beside others, some of which are counted and some not; one prompt is prefilled in several steps."""
    jobs = [job(f"r{i}", prompt=prompt(5 + 60 * i, i), max_tokens=4 + i, min_tokens=4 + i) for i in range(6)]
    for one in jobs:
        mixture.engine.submit(one, count_experts=one.request_id in {"r1", "r2", "r5"})
    keys = [(one.request_id, 0) for one in jobs]
    await mixture.until(lambda: all(mixture.ends[key] for key in keys) and len(mixture.routed) == 3)
    answers = {key: (tuple(mixture.ids[key]), mixture.ends[key][0].reason) for key in keys}
    assert {key for key, _ in mixture.routed} == {"r1", "r2", "r5"}
    for one in jobs:
        if (one.request_id, 0) in mixture.routed:
            experts = counted(mixture, one.request_id)
            assert experts.layers == tuple(range(LAYERS))
            assert {len(row) for row in experts.counts} == {EXPERTS}
            assert [sum(row) for row in experts.counts] == [computed(one, answers) * TOP_K] * LAYERS


async def test_the_counts_are_those_of_the_plain_model(mixture, models):
    one = replace(job("r", prompt=prompt(40), max_tokens=6, min_tokens=6, **GREEDY), workspace="w7", organisation="o7")
    mixture.engine.submit(one, count_experts=True)
    mixture.engine.submit(job("beside", prompt=prompt(30, 9), max_tokens=9))
    await mixture.until(lambda: bool(mixture.ends["r", 0] and mixture.routed))
    model = AutoModelForCausalLM.from_pretrained(models / "standin-small")
    ids = [*one.prompt_ids, *mixture.ids["r", 0][:-1]]
    with torch.no_grad():
        logits = model(torch.tensor([ids]), output_router_logits=True).router_logits
    chosen = [layer.topk(TOP_K).indices.flatten().bincount(minlength=EXPERTS).tolist() for layer in logits]
    sample = mixture.routed["r", 0].sample
    assert [list(row) for row in sample.experts.counts] == chosen
    assert sample == ExpertSample("pool", "o7", "w7", sample.experts)


async def test_each_choice_is_told_apart_and_an_aborted_one_tells_what_was_computed(mixture):
    mixture.engine.submit(job("two", n=2, max_tokens=5, min_tokens=5), count_experts=True)
    mixture.engine.submit(job("cut", max_tokens=300, min_tokens=300), count_experts=True)
    await mixture.until(lambda: len(mixture.ids["cut", 0]) > 3)
    mixture.engine.abort("cut")
    await mixture.until(lambda: {("two", 0), ("two", 1), ("cut", 0)} <= mixture.routed.keys())
    sums = {sum(row) for row in counted(mixture, "cut").counts}
    assert len(sums) == 1
    assert sums.pop() > 3 * TOP_K
    mixture.forget()
    await mixture.answer(job("later"))
    assert mixture.routed == {}


async def test_a_model_without_experts_tells_nothing(run):
    run.engine.submit(job(), count_experts=True)
    await run.until(lambda: bool(run.ends["r", 0]))
    assert (await run.answer(job("next")))["next", 0][1] in {"stop", "length"}
    assert run.routed == {}
