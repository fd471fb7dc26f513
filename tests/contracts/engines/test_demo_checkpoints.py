"""The trained checkpoints in every engine of real models: together, they say what plain transformers says alone."""

import pytest

from demo.answers import ANSWER_TOKENS_MAX, answer_all, load_model
from demo.mixture import MIXTURES, held_out
from demo.placing import WEIGHTS
from demo.rows import prompt, tokenizer
from tests.contracts.engines.models import GREEDY, running
from tests.contracts.engines.run import job


@pytest.mark.parametrize("name", MIXTURES)
async def test_a_trained_checkpoint_says_what_plain_generate_says(name):
    prompts = [prompt(example) for example in held_out(MIXTURES[name], seed=1, per_skill=1)]
    jobs = [job(f"r{i}", prompt=ids, max_tokens=ANSWER_TOKENS_MAX, **GREEDY) for i, ids in enumerate(prompts)]
    async with running(WEIGHTS / name, dtype="float32") as run:
        answers = await run.answer(*jobs)
    texts = [tokenizer().decode(answers[one.request_id, 0][0]) for one in jobs]
    assert texts == answer_all(load_model(WEIGHTS / name), prompts, batch=1)
    assert all(answers[one.request_id, 0][1] == "stop" for one in jobs)
