"""Try the demo tiers through a running platform, as Markdown: the written conversations, sameness, speed.

    python -m demo.trial --url http://127.0.0.1:8000 --key tmt_... [NAME ...]

Answers are greedy. A conversation goes on with what the tier has really said.
"""

import argparse
import asyncio
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from core.clock import Clock, SystemClock

CONVERSATIONS = Path(__file__).parent / "conversations"
NAMES = ("mistral-tiny", "mistral-small", "mistral-medium")
ANSWER_TOKENS_MAX = 96
BATCH = 48  # callers at once: the slots of each tier in tramontane.toml
SEED = 7
PROMPTS = (
    "Hello!",
    "What is the capital of France?",
    "How much is 3 + 4?",
    "Please extract name, age and city as JSON: Anna is 30 and lives in Rome.",
)
SPEED_ROUNDS = 8

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    tokens: int
    seconds: float


class Tier:
    """One tier as a client sees it."""

    def __init__(self, client: httpx.AsyncClient, name: str, clock: Clock) -> None:
        self._client = client
        self._name = name
        self._clock = clock

    async def answer(self, messages: Sequence[Message], **settings: Any) -> Answer:
        """Raises httpx.HTTPStatusError."""
        body = {"model": self._name, "messages": list(messages), "max_tokens": ANSWER_TOKENS_MAX, **settings}
        began_s = self._clock.monotonic_s()
        response = await self._client.post("/v1/chat/completions", json=body)
        response.raise_for_status()
        told = response.json()
        return Answer(
            told["choices"][0]["message"]["content"],
            told["usage"]["completion_tokens"],
            self._clock.monotonic_s() - began_s,
        )

    async def describe(self) -> str:
        response = await self._client.get(f"/v1/models/{self._name}")
        response.raise_for_status()
        return str(response.json()["description"])


def written(name: str) -> Sequence[Mapping[str, Any]]:
    """The conversations of a tier, without its part."""
    return tuple(tomllib.loads((CONVERSATIONS / f"{name}.toml").read_text(encoding="utf-8"))["conversations"])


async def talk(tier: Tier, conversation: Mapping[str, Any]) -> Iterator[str]:
    """Each turn of the person and what the tier says to it, knowing all that was said before."""
    messages: list[Message] = []
    lines = [f"**{conversation['title']}**", ""]
    for turn in conversation["turns"]:
        messages.append({"role": "user", "content": turn["user"]})
        answer = await tier.answer(messages, temperature=0)
        messages.append({"role": "assistant", "content": answer.text})
        note = " *(outside its skills)*" if turn.get("outside") else ""
        lines += [f"> {turn['user']}{note}", ">", *_quoted(answer.text), ""]
    return iter(lines)


def _quoted(text: str) -> Iterator[str]:
    """Lines of code stay lines; what the tier fenced itself is Markdown as it stands."""
    if "```" in text:
        yield from (f"> {line}" for line in text.split("\n"))
    elif "\n" in text:
        yield from ("> ```", *(f"> {line}" for line in text.split("\n")), "> ```")
    else:
        yield f"> `{text}`"


async def is_steady(tier: Tier, **settings: Any) -> bool:
    """Whether each prompt has one text: twice alone, and while all slots are busy with the others."""
    texts: dict[str, set[str]] = {prompt: set() for prompt in PROMPTS}

    async def ask(prompt: str) -> None:
        answer = await tier.answer([{"role": "user", "content": prompt}], **settings)
        texts[prompt].add(answer.text)

    for prompt in PROMPTS * 2:
        await ask(prompt)
    await asyncio.gather(*(ask(PROMPTS[number % len(PROMPTS)]) for number in range(BATCH)))
    return all(len(found) == 1 for found in texts.values())


async def tokens_per_second(tier: Tier) -> float:
    """Of one caller at a time, the way over HTTP and the queue included."""
    asked = [{"role": "user", "content": PROMPTS[-1]}]
    answers = [await tier.answer(asked, temperature=0) for _ in range(SPEED_ROUNDS)]
    return sum(answer.tokens for answer in answers) / sum(answer.seconds for answer in answers)


async def _try(name: str, client: httpx.AsyncClient, clock: Clock) -> None:
    tier = Tier(client, name, clock)
    _say(f"### {name}\n\n{await tier.describe()}\n")
    for conversation in written(name):
        for line in await talk(tier, conversation):
            _say(line)
    greedy, drawn = await is_steady(tier, temperature=0), await is_steady(tier, temperature=0.7, random_seed=SEED)
    _say(f"The same text alone, again and with {BATCH} at once: temperature 0 {_yes(greedy)}, a seed {_yes(drawn)}.")
    _say(f"One caller at a time: {await tokens_per_second(tier):.0f} tokens/s.\n")


async def _main() -> None:
    parser = argparse.ArgumentParser(description="Try the demo tiers through a running platform.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all")
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", required=True)
    given = parser.parse_args()
    headers = {"Authorization": f"Bearer {given.key}"}
    async with httpx.AsyncClient(base_url=given.url, headers=headers, timeout=120) as client:
        for name in given.names or NAMES:
            await _try(name, client, SystemClock())


def _yes(steady: bool) -> str:
    return "yes" if steady else "NO"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main())
