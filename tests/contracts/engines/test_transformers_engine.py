"""What only a real model can show: its tokens against a plain `generate`, seeds in any batch, and a dying thread."""

import asyncio
import os
import random
import threading
import time

import pytest
import structlog
import torch
from transformers import AutoModelForCausalLM

from core.catalog import Tier
from core.clock import SystemClock
from core.wire import CHAT, Job, Sampling
from demo.standin import make_standins
from workers.engines import cb_manager
from workers.engines.base import ChoiceEnd, Output, Tokens
from workers.engines.transformers_engine import EngineFailedError, TransformersEngine

WAIT_S = 60
EOS = 2
NAMES = ("mistral-tiny", "mistral-small")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    make_standins(home, NAMES, lambda _: None)
    return home / "models"


def tier(name="mistral-tiny", **changes) -> Tier:
    values = {"context_tokens": 512, "slots": 8, "batch_tokens_max": 128, "price": {"input": "1"}, **changes}
    return Tier(name=name, engine="transformers", weights=f"demo:{name}", **values)


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    rnd = random.Random(seed)
    return (1, *(rnd.randrange(3, 32_000) for _ in range(length - 1)))


def job(request_id: str, prompt_ids: tuple[int, ...], emitted: tuple[tuple[int, ...], ...] = (), **sampling) -> Job:
    values = {"max_tokens": 16, "temperature": 0.0, **sampling}
    return Job(
        request_id, "g", "o", "w", "t", CHAT, 10**15, len(prompt_ids), 0,
        prompt_ids=prompt_ids, emitted_ids=emitted, sampling=Sampling(**values),
    )  # fmt: skip


class Reader:
    """Runs an engine and gathers its outputs per choice."""

    def __init__(self, engine: TransformersEngine) -> None:
        self.engine = engine
        self.tokens: dict[tuple[str, int], list[int]] = {}
        self.ends: dict[tuple[str, int], ChoiceEnd] = {}
        self.changed = asyncio.Condition()
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Reader":
        await self.engine.start()
        self.task = asyncio.create_task(self.read())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engine.close()
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(self.task, return_exceptions=True)

    async def read(self) -> None:
        async for outputs in self.engine.steps():
            async with self.changed:
                for output in outputs:
                    self.note(output)
                self.changed.notify_all()

    def note(self, output: Output) -> None:
        at = (output.request_id, output.choice)
        assert at not in self.ends, "nothing comes after the end"
        if isinstance(output, Tokens):
            assert output.token_ids
            self.tokens.setdefault(at, []).extend(output.token_ids)
        else:
            self.ends[at] = output

    async def until(self, condition) -> None:
        async with asyncio.timeout(WAIT_S), self.changed:
            await self.changed.wait_for(condition)

    async def run(self, *jobs: Job) -> list[list[int]]:
        """The token ids of each job's choices, in order."""
        keys = [(j.request_id, choice) for j in jobs for choice in range(j.sampling.n)]
        for each in jobs:
            self.engine.submit(each)
        await self.until(lambda: all(key in self.ends for key in keys))
        return [self.tokens.get(key, []) for key in keys]


def running(models, name="mistral-tiny", **changes) -> Reader:
    engine = TransformersEngine(tier(name, **changes), models / name, SystemClock(), structlog.get_logger())
    return Reader(engine)


def oracle(models, name: str, prompt_ids: tuple[int, ...], count: int) -> list[int]:
    """Plain greedy decoding, without the end."""
    model = AutoModelForCausalLM.from_pretrained(models / name)
    inputs = torch.tensor([prompt_ids])
    out = model.generate(
        inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=count, do_sample=False, pad_token_id=0
    )
    ids = out[0, len(prompt_ids) :].tolist()
    return ids[: ids.index(EOS)] if EOS in ids else ids


@pytest.mark.parametrize("name", NAMES)
async def test_greedy_is_what_plain_generate_gives(models, name):
    """Also for a prompt that is prefilled in several steps, beside others that decode."""
    prompts = [prompt(5, 1), prompt(60, 2), prompt(300, 3)]
    async with running(models, name) as reader:
        got = await reader.run(*(job(f"r{i}", ids, max_tokens=20) for i, ids in enumerate(prompts)))
    assert got == [oracle(models, name, ids, 20) for ids in prompts]


@pytest.mark.parametrize("name", NAMES)
async def test_a_seed_gives_the_same_tokens_alone_and_among_others(models, name):
    kinds = [
        {"temperature": 0.7, "seed": 11, "n": 2},
        {"temperature": 1.2, "seed": 11, "top_p": 0.8},
        {"temperature": 0.7},
        {"temperature": 0.0},
        {"temperature": 0.9, "seed": 4, "frequency_penalty": 0.7},
        {"temperature": 0.9, "seed": 4, "presence_penalty": -0.5},
        {"temperature": 1.0, "seed": 5, "min_tokens": 8},
        {"temperature": 1.0, "seed": 6},
    ]
    jobs = [job(f"r{i}", prompt(10 + 9 * i, i), max_tokens=24, **kind) for i, kind in enumerate(kinds)]
    async with running(models, name) as reader:
        together = await reader.run(*jobs)
    async with running(models, name) as reader:
        alone = [ids for each in jobs for ids in await reader.run(each)]
    assert together == alone
    assert together[0] != together[1], "the choices of one request differ"


async def test_a_choice_continues_as_if_never_interrupted(models):
    kind = {"max_tokens": 30, "temperature": 1.0, "seed": 9, "frequency_penalty": 0.5, "n": 2}
    async with running(models) as reader:
        whole = await reader.run(job("a", prompt(20), **kind))
        rest = await reader.run(job("b", prompt(20), (tuple(whole[0][:13]), ()), **kind))
    assert rest == [whole[0][13:], whole[1]]


async def test_the_end_of_the_text_is_a_stop_and_not_a_token(models, tmp_path):
    """With the model's own third token declared as its end."""
    third = oracle(models, "mistral-tiny", prompt(12), 3)
    folder = tmp_path / "model"
    folder.mkdir()
    for file in (models / "mistral-tiny").iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "generation_config.json").unlink()
    (folder / "generation_config.json").write_text(f'{{"bos_token_id": 1, "eos_token_id": [2, {third[2]}]}}')
    reader = Reader(TransformersEngine(tier(), folder, SystemClock(), structlog.get_logger()))
    async with reader:
        assert await reader.run(job("a", prompt(12))) == [third[:2]]
        assert reader.ends["a", 0].reason == "stop"
        longer = await reader.run(job("b", prompt(12), min_tokens=6))
        assert third[2] not in longer[0][:6]
        assert len(longer[0]) >= 6


@pytest.mark.parametrize(
    ("prompt_tokens", "emitted", "max_tokens", "given"),
    [(60, 0, 10, 4), (60, 3, 10, 1), (64, 0, 10, 0), (10, 10, 10, 0), (10, 4, 10, 6)],
)
async def test_max_tokens_and_the_context_end_with_length(models, prompt_tokens, emitted, max_tokens, given):
    async with running(models, context_tokens=64) as reader:
        before = (tuple(range(5, 5 + emitted)),)
        got = await reader.run(job("a", prompt(prompt_tokens), before, max_tokens=max_tokens))
    assert (len(got[0]), reader.ends["a", 0].reason) == (given, "length")


async def test_more_than_the_cache_holds_is_computed_again_and_comes_out_right(models):
    """Two contexts of cache for six requests that need nearly one each."""
    jobs = [job(f"r{i}", prompt(30, i), max_tokens=190, temperature=0.8, seed=i, min_tokens=190) for i in range(6)]
    async with running(models, context_tokens=256, slots=4) as reader:
        together = await reader.run(*jobs)
    async with running(models, context_tokens=256, slots=4) as reader:
        alone = [(await reader.run(each))[0] for each in jobs[:2] + jobs[5:]]
    assert [len(ids) for ids in together] == [190] * 6
    assert together[:2] + together[5:] == alone


async def test_an_aborted_request_frees_its_place_and_leaves_the_others_alone(models):
    long = {"max_tokens": 400, "min_tokens": 400}
    async with running(models) as reader:
        for name in ("a", "b"):
            reader.engine.submit(job(name, prompt(10), n=2, **long))
        await reader.until(lambda: ("a", 1) in reader.tokens)
        reader.engine.abort("a", 1)
        reader.engine.abort("a", 1)
        reader.engine.abort("unknown")
        await reader.until(lambda: ("a", 1) in reader.ends)
        assert set(reader.ends) == {("a", 1)}
        assert reader.engine.stats().running == 2
        reader.engine.abort("a")
        reader.engine.abort("b", 0)
        await reader.until(lambda: len(reader.ends) == 4)
        assert {end.reason for key, end in reader.ends.items() if key != ("b", 1)} == {"aborted"}
        assert len(reader.tokens["b", 1]) == 400
        again = await reader.run(job("c", prompt(10)))
        assert (len(again[0]), reader.engine.stats().running) == (16, 0)


@pytest.mark.parametrize("bad", [(1, 32_000), (1, -1), ()])
async def test_a_bad_job_fails_alone(models, bad):
    async with running(models) as reader:
        reader.engine.submit(job("good", prompt(10)))
        assert await reader.run(job("bad", bad, n=2)) == [[], []]
        assert [reader.ends["bad", choice].reason for choice in (0, 1)] == ["error", "error"]
        await reader.until(lambda: ("good", 0) in reader.ends)
        assert reader.ends["good", 0].reason == "length"


async def test_a_request_that_runs_already_is_refused(models):
    async with running(models) as reader:
        reader.engine.submit(job("a", prompt(10), max_tokens=400))
        reader.engine.submit(job("a", prompt(10)))
        await reader.until(lambda: reader.ends)
        assert reader.ends["a", 0].error == "The job is already running."


async def test_a_dying_thread_fails_all_its_requests_and_then_the_engine(models, monkeypatch):
    real, steps = cb_manager.choose, []

    def break_at_the_fifth(*arguments: object) -> None:
        steps.append(arguments)
        if len(steps) == 5:
            raise RuntimeError("out of memory")
        real(*arguments)

    monkeypatch.setattr(cb_manager, "choose", break_at_the_fifth)
    reader = running(models)
    await reader.engine.start()
    for name in ("a", "b"):
        reader.engine.submit(job(name, prompt(10), n=2, max_tokens=100))
    with pytest.raises(EngineFailedError, match="out of memory"):
        async with asyncio.timeout(WAIT_S):
            await reader.read()
    assert [end.reason for end in reader.ends.values()] == ["error"] * 4
    assert reader.engine.stats().running == 0
    reader.engine.submit(job("c", prompt(10)))
    outputs = await anext(reader.engine.steps())
    assert outputs == [ChoiceEnd("c", 0, "error", "The engine has failed.")]
    await reader.engine.close()


async def test_a_hung_thread_shows_in_the_stats_and_does_not_hold_up_the_end(models, monkeypatch):
    real, hung, go_on = cb_manager.choose, threading.Event(), threading.Event()

    def hang(*arguments: object) -> None:
        hung.set()
        go_on.wait(WAIT_S)
        real(*arguments)

    monkeypatch.setattr(cb_manager, "choose", hang)
    monkeypatch.setattr("workers.engines.transformers_engine.CLOSE_S", 0.1)
    reader = running(models)
    async with reader:
        reader.engine.submit(job("a", prompt(10)))
        assert await asyncio.to_thread(hung.wait, WAIT_S)
        before = reader.engine.stats()
        await asyncio.sleep(0.3)
        assert reader.engine.stats() == before
        assert before.running == 1
    [thread] = [thread for thread in threading.enumerate() if thread.name == "engine"]
    assert thread.daemon
    go_on.set()
    await asyncio.to_thread(thread.join, WAIT_S)
    assert not thread.is_alive()


async def test_an_idle_engine_costs_next_to_nothing(models):
    async with running(models) as reader:
        await reader.run(job("a", prompt(10)))
        begun_s = time.process_time()
        await asyncio.sleep(1.0)
        assert time.process_time() - begun_s < 0.2  # of this process only, so other load does not count


async def test_closing_frees_the_thread_and_ends_the_steps(models):
    async with running(models) as reader:
        reader.engine.submit(job("a", prompt(10), max_tokens=400))
        await reader.until(lambda: reader.tokens)
    assert reader.task.exception() is None
    assert reader.ends == {}
    assert not [thread for thread in threading.enumerate() if thread.name == "engine"]
    assert os.getpid()
