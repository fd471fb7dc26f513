"""What is drawn, and what is said of it, against forward passes of the plain model and the same rules by hand."""

from collections import Counter

import pytest
import structlog
import torch
from transformers import AutoModelForCausalLM

from core.queue.executor import Ended
from core.wire import Piece
from tests.contracts.engines.models import EOS, GREEDY, MODEL_ENGINE, new_engine, oracle, prompt
from tests.contracts.engines.run import job
from tests.unit.loop_bench import MODEL, VOCABULARY
from workers.generator import Generator

NAME = "standin-tiny"
COUNT = 24


@pytest.fixture(scope="module")
def plain(models):
    return AutoModelForCausalLM.from_pretrained(models / NAME)


@torch.no_grad()
def scores(plain, prompt_ids, token_ids) -> torch.Tensor:
    """The raw scores that each of the tokens was drawn from."""
    logits = plain(torch.tensor([[*prompt_ids, *token_ids]])).logits[0].float()
    return logits[len(prompt_ids) - 1 : -1]


async def answers(run, *jobs):
    run.forget()
    return {key: list(ids) for key, (ids, _) in (await run.answer(*jobs)).items()}


async def test_log_probabilities_are_those_of_a_forward_pass(model_run, plain):
    """Before temperature, penalties and cuts; of both choices, alone and beside others."""
    kinds = [
        {"temperature": 0.8, "seed": 3, "n": 2, "top_k": 50, "logprobs": 4},
        {"logprobs": 0, "repetition_penalty": 1.4, **GREEDY},
        {"temperature": 1.5, "seed": 4, "frequency_penalty": 1.0, "top_p": 0.9, "min_tokens": COUNT, "logprobs": 20},
        {"temperature": 1.0, "seed": 5},
    ]
    jobs = [job(f"r{i}", prompt=prompt(12 + i, i), max_tokens=COUNT, **kind) for i, kind in enumerate(kinds)]
    got = await answers(model_run, *jobs)
    for one in jobs[:3]:
        for choice in range(one.sampling.n):
            ids = got[one.request_id, choice]
            said = torch.log_softmax(scores(plain, one.prompt_ids, ids), dim=-1)
            reports = model_run.logprobs[one.request_id, choice]
            assert len(reports) == len(ids)
            own = said.gather(-1, torch.tensor(ids)[:, None])[:, 0]
            assert [value for value, _ in reports] == pytest.approx(own.tolist(), abs=1e-3)
            for place, (_, top) in enumerate(reports):
                assert len(top) == one.sampling.logprobs
                assert [value for _, value in top] == pytest.approx(
                    said[place].topk(len(top)).values.tolist(), abs=1e-3
                )
                assert [said[place, i].item() for i, _ in top] == pytest.approx([value for _, value in top], abs=1e-3)


async def test_the_repetition_penalty_is_what_plain_generate_does(model_run, models, plain):
    one = job(prompt=prompt(30, 1), max_tokens=COUNT, repetition_penalty=1.3, **GREEDY)
    got = await answers(model_run, one)
    inputs = torch.tensor([one.prompt_ids])
    out = plain.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        max_new_tokens=COUNT,
        do_sample=False,
        repetition_penalty=1.3,
        pad_token_id=0,
    )
    ids = out[0, len(one.prompt_ids) :].tolist()
    assert got["r", 0] == (ids[: ids.index(EOS)] if EOS in ids else ids)
    assert got["r", 0] != oracle(models / NAME, one.prompt_ids, COUNT), "the penalty matters here"


@pytest.mark.parametrize(
    "penalties",
    [{"presence_penalty": 1.5}, {"frequency_penalty": 0.8}, {"presence_penalty": 0.5, "frequency_penalty": -0.4}],
)
async def test_presence_and_frequency_penalties_are_what_they_are_by_hand(model_run, plain, penalties):
    one = job(prompt=prompt(10, 3), max_tokens=COUNT, min_tokens=COUNT, **penalties, **GREEDY)
    got = await answers(model_run, one)
    raw = scores(plain, one.prompt_ids, got["r", 0])
    before: Counter[int] = Counter()
    for place, token_id in enumerate(got["r", 0]):
        row = raw[place].clone()
        row[EOS] = -torch.inf
        for seen, times in before.items():
            row[seen] -= penalties.get("presence_penalty", 0.0) + penalties.get("frequency_penalty", 0.0) * times
        assert row[token_id] >= row.max() - 1e-4
        before[token_id] += 1


async def test_nothing_is_drawn_outside_top_k_and_top_p(model_run, models, plain):
    jobs = [
        job("k", prompt=prompt(9, 1), max_tokens=COUNT, temperature=1.5, seed=1, top_k=3),
        job("one", prompt=prompt(9, 2), max_tokens=COUNT, temperature=1.5, seed=1, top_k=1),
        job("p", prompt=prompt(9, 3), max_tokens=COUNT, temperature=1.2, seed=1, top_p=0.3),
    ]
    got = await answers(model_run, *jobs)
    assert got["one", 0] == oracle(models / NAME, jobs[1].prompt_ids, COUNT)
    rank = 0
    for row, token_id in zip(scores(plain, jobs[0].prompt_ids, got["k", 0]), got["k", 0], strict=True):
        assert row[token_id] >= row.topk(3).values[-1] - 1e-4
        rank = max(rank, int((row > row[token_id] + 1e-4).sum()))
    assert rank > 0, "not only the likeliest"
    for row, token_id in zip(scores(plain, jobs[2].prompt_ids, got["p", 0]), got["p", 0], strict=True):
        shares = torch.softmax(row / 1.2, dim=-1)
        assert shares[shares > shares[token_id] + 1e-6].sum() < 0.3 + 1e-4


async def test_choices_differ_and_come_again_with_their_seed(model_run):
    one = {"prompt": prompt(11, 4), "max_tokens": COUNT, "temperature": 1.0, "seed": 21, "n": 4}
    others = [job(f"other{i}", prompt=prompt(20 + i, i), max_tokens=COUNT, seed=i) for i in range(4)]
    first = await answers(model_run, job(**one))
    second = await answers(model_run, *others, job(**one))
    texts = [tuple(first["r", choice]) for choice in range(4)]
    assert len(set(texts)) == 4
    assert texts == [tuple(second["r", choice]) for choice in range(4)]


async def text_of(generator, steps, one) -> tuple[str, Ended]:
    shown = []
    generator.submit(one)
    while True:
        for event in await anext(steps):
            if isinstance(event, Piece):
                shown.append(event.text)
            else:
                return "".join(shown), event


async def test_greedy_text_is_that_of_plain_generate_and_ends_before_a_stop_string(models):
    one = {"prompt": prompt(14, 6), "max_tokens": COUNT, **GREEDY}
    whole = MODEL.decode(oracle(models / NAME, one["prompt"], COUNT))
    stop = whole[len(whole) // 2 : len(whole) // 2 + 4]
    generator = Generator(new_engine(MODEL_ENGINE, models / NAME), VOCABULARY, structlog.get_logger())
    await generator.start()
    steps = generator.steps()
    try:
        text, _ = await text_of(generator, steps, job("whole", **one))
        assert text == whole
        text, ended = await text_of(generator, steps, job("cut", **one, stop=(stop, "never said")))
    finally:
        await generator.close()
        await steps.aclose()
    assert text == whole[: whole.index(stop)]
    assert ended.end.finish_reasons == ("stop",)
    assert ended.end.usage.completion_tokens < COUNT
