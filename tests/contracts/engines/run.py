"""One engine under test: jobs in, outputs gathered by request and choice."""

import asyncio
from collections import defaultdict
from collections.abc import Callable

from core.wire import CHAT, Job, Sampling, TokenLogprob
from workers.engines.base import ChoiceEnd, Engine, Routed, Tokens

CONTEXT_TOKENS = 512
WAIT_S = 60
PROMPT = (1, 733, 16289, 28793, 22557, 733, 28748, 16289, 28793)  # [INST] Hello [/INST]


def job(request_id="r", *, prompt=PROMPT, emitted=(), grammar=None, **sampling):
    return Job(
        request_id=request_id,
        submitter="s",
        organisation="o",
        workspace="w",
        tier="pool",
        kind=CHAT,
        deadline_ms=2**50,
        prompt_tokens=len(prompt),
        cost_expected=1,
        prompt_ids=prompt,
        emitted_ids=emitted,
        grammar=grammar,
        sampling=Sampling(**({"max_tokens": 12, "seed": 7} | sampling)),
    )


class Run:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.ids: dict[tuple[str, int], list[int]] = defaultdict(list)
        self.logprobs: dict[tuple[str, int], list[TokenLogprob]] = defaultdict(list)
        self.ends: dict[tuple[str, int], list[ChoiceEnd]] = defaultdict(list)
        self.routed: dict[tuple[str, int], Routed] = {}
        self.closed = False
        self._steps = engine.steps()

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not done():
                self.keep(await anext(self._steps))

    def keep(self, outputs):
        assert outputs, "a step brings something"
        for output in outputs:
            key = (output.request_id, output.choice)
            if isinstance(output, Routed):
                assert key not in self.routed
                self.routed[key] = output
                continue
            assert not self.ends[key], f"nothing comes after the end of {key}"
            if isinstance(output, Tokens):
                assert output.token_ids
                self.ids[key] += output.token_ids
                self.logprobs[key] += output.logprobs
            else:
                self.ends[key].append(output)

    async def answer(self, *jobs):
        """Submit and run to the end of every choice; ids and reason by request and choice."""
        for one in jobs:
            self.engine.submit(one)
        keys = [(one.request_id, i) for one in jobs for i in range(one.sampling.n)]
        await self.until(lambda: all(self.ends[key] for key in keys))
        return {key: (tuple(self.ids[key]), self.ends[key][0].reason) for key in keys}

    def forget(self) -> None:
        """What it has said so far."""
        for kept in (self.ids, self.logprobs, self.ends, self.routed):
            kept.clear()

    async def abort_all(self) -> None:
        """What has begun to answer and has not ended."""
        open_keys = [key for key in tuple(self.ids) if not self.ends[key]]
        for request_id, choice in open_keys:
            self.engine.abort(request_id, choice)
        await self.until(lambda: all(self.ends[key] for key in open_keys))

    async def silence(self) -> None:
        """Close; whatever still comes is kept, and may contradict an end."""
        self.closed = True
        await self.engine.close()
        async with asyncio.timeout(WAIT_S):
            async for outputs in self._steps:
                self.keep(outputs)
