"""What workers/engines/base.py promises, over every engine."""

from dataclasses import replace

import pytest

from tests.contracts.engines.run import CONTEXT_TOKENS, PROMPT, job

LONG = {"max_tokens": 200, "min_tokens": 200}


async def test_an_answer_has_max_tokens_at_most_and_one_end(run):
    (ids, reason) = (await run.answer(job(max_tokens=5, min_tokens=5)))["r", 0]
    assert (len(ids), reason) == (5, "length")
    assert run.engine.stats().running == 0


async def test_every_choice_of_every_request_ends(run):
    jobs = [job(f"r{i}", max_tokens=1 + i, min_tokens=1 + i, n=1 + i % 3) for i in range(12)]
    answers = await run.answer(*jobs)
    for one in jobs:
        for choice in range(one.sampling.n):
            assert len(answers[one.request_id, choice][0]) == one.sampling.max_tokens
    await run.silence()


async def test_the_same_seed_gives_the_same_tokens_beside_any_others(run):
    alone = (await run.answer(job("alone")))["alone", 0]
    others = [job(f"other{i}", seed=i, prompt=(*PROMPT, 100 + i)) for i in range(5)]
    together = await run.answer(*others, job("again"))
    assert together["again", 0] == alone


async def test_an_answer_begun_elsewhere_is_continued_without_a_seam(run):
    whole = await run.answer(job("whole", n=2, min_tokens=12))
    begun = tuple(whole["whole", choice][0][: 4 + choice] for choice in range(2))
    rest = await run.answer(job("rest", n=2, min_tokens=12, emitted=begun))
    for choice in range(2):
        ids, reason = rest["rest", choice]
        assert (begun[choice] + ids, reason) == whole["whole", choice]


async def test_nothing_is_left_to_generate(run):
    emitted = (tuple(range(1000, 1012)),)
    assert await run.answer(job(emitted=emitted)) == {("r", 0): ((), "length")}


async def test_the_context_bounds_the_answer(run):
    prompt = PROMPT + (22557,) * (CONTEXT_TOKENS - len(PROMPT) - 3)
    ids, reason = (await run.answer(job(prompt=prompt, min_tokens=12)))["r", 0]
    assert (len(ids) <= 3, reason) == (True, "length")


async def test_an_aborted_request_says_so_once_for_each_open_choice(run):
    run.engine.submit(job(n=2, **LONG))
    await run.until(lambda: bool(run.ids["r", 0] and run.ids["r", 1]))
    run.engine.abort("r")
    run.engine.abort("r")
    await run.until(lambda: bool(run.ends["r", 0] and run.ends["r", 1]))
    assert {run.ends["r", i][0].reason for i in range(2)} == {"aborted"}
    assert run.engine.stats().running == 0
    await run.silence()


async def test_one_choice_is_aborted_alone(run):
    run.engine.submit(job(n=3, max_tokens=40, min_tokens=40))
    await run.until(lambda: bool(run.ids["r", 1]))
    run.engine.abort("r", 1)
    await run.until(lambda: all(run.ends["r", i] for i in range(3)))
    assert [run.ends["r", i][0].reason for i in range(3)] == ["length", "aborted", "length"]
    assert [len(run.ids["r", i]) for i in (0, 2)] == [40, 40]


async def test_a_request_is_aborted_before_its_first_step(run):
    run.engine.submit(job(**LONG))
    run.engine.abort("r")
    await run.until(lambda: bool(run.ends["r", 0]))
    assert run.ends["r", 0][0].reason == "aborted"
    assert run.ids["r", 0] == []


async def test_aborting_what_is_unknown_or_over_does_nothing(run):
    first = await run.answer(job("first"))
    run.engine.abort("first")
    run.engine.abort("nobody")
    run.engine.abort("nobody", 3)
    second = await run.answer(job("second"))
    assert second["second", 0] == first["first", 0]
    await run.silence()


async def test_the_same_id_may_come_again_after_its_end(run):
    first = await run.answer(job())
    run.ids.clear()
    run.ends.clear()
    assert await run.answer(replace(job(), attempt=2)) == first


async def test_a_job_that_cannot_be_served_fails_alone(run):
    run.engine.submit(replace(job("bad"), sampling=None))
    answers = await run.answer(job("good"))
    await run.until(lambda: bool(run.ends["bad", 0]))
    assert run.ends["bad", 0][0].reason == "error"
    assert run.ends["bad", 0][0].error
    assert answers["good", 0][1] in {"stop", "length"}


@pytest.mark.parametrize("likeliest", [0, 3])
async def test_each_token_has_its_log_probability_if_asked_for(run, likeliest):
    asked = job("asked", logprobs=likeliest, n=2, emitted=((22557,), ()))
    answers = await run.answer(asked, job("plain"))
    for choice in range(2):
        reports = run.logprobs["asked", choice]
        assert len(reports) == len(answers["asked", choice][0]) > 0
        for own, top in reports:
            assert own <= 0
            assert len(top) <= likeliest
            assert [value for _, value in top] == sorted([value for _, value in top], reverse=True)
    assert run.logprobs["plain", 0] == []
    assert answers["plain", 0] == (await run.answer(job("again", logprobs=5)))["again", 0], "asking changes nothing"


async def test_a_grammar_that_cannot_be_used_fails_alone(run):
    answers = await run.answer(job("bad", n=2, grammar="start: %json {"), job("good"))
    assert [answers["bad", choice] for choice in range(2)] == [((), "error")] * 2
    assert all(run.ends["bad", choice][0].error for choice in range(2))
    assert answers["good", 0][1] != "error"


async def test_stats_tell_idle_from_busy(run):
    idle = run.engine.stats()
    assert idle.running == 0
    run.engine.submit(job(**LONG))
    busy = run.engine.stats()
    assert busy.running == 1
    assert busy.last_step_s >= idle.last_step_s
    await run.until(lambda: bool(run.ids["r", 0]))
    assert run.engine.stats().last_step_s >= busy.last_step_s


async def test_close_ends_the_steps_with_work_open(run):
    run.engine.submit(job(**LONG))
    await run.until(lambda: bool(run.ids["r", 0]))
    await run.silence()
    assert run.ends["r", 0] == []
