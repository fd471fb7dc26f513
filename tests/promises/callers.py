"""What callers do: ask, wait out refusals, read streams and leave them, keep up a load."""

import asyncio
import json
import random
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from tests.promises.platform import TINY

CHAT, FIM, EMBEDDINGS = "/v1/chat/completions", "/v1/fim/completions", "/v1/embeddings"
PROMPT = "Hello there"  # 10 tokens of the v1 template
LONG = "[[echo:pace=20]] [[echo:tokens=1500]]"  # more than a minute
TRIES_MAX = 400
GONE = (httpx.RemoteProtocolError, httpx.ReadError)


def chat(content=PROMPT, model=TINY, **fields):
    return {"model": model, "messages": [{"role": "user", "content": content}], **fields}


def body(**fields):
    return chat(max_tokens=4, **fields)


async def ask(client, *, seed=0, tries=TRIES_MAX, **fields):
    """The answer, after waiting out 429 and 503."""
    pauses = random.Random(seed)
    for _ in range(tries):
        answer = await client.post(CHAT, json=body(**fields))
        if answer.status_code not in {429, 503}:
            return answer
        await asyncio.sleep(0.05 + 0.2 * pauses.random())
    raise AssertionError(f"still {answer.status_code} after {tries} tries: {answer.text}")


async def ask_many(client, count, *, seed=0, **fields):
    return await asyncio.gather(*(ask(client, seed=seed * count + i, **fields) for i in range(count)))


def statuses(answers):
    return Counter(answer.status_code for answer in answers)


def refused_by(answer):
    return answer.json()["x_tramontane"]["refused_by"]


@dataclass
class Heard:
    """What a client saw of one stream. `first`: text has come."""

    status: int = 0
    request_id: str = ""
    price_version: str = ""
    text: str = ""
    finish_reason: str | None = None
    usage: dict | None = None
    done: bool = False
    error: dict | None = None
    first: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def words(self):
        return len(self.text.split())


async def listen(client, heard, path=CHAT, *, leave_after=None, **fields):
    """Until the end, or until so many words are there."""
    async with client.stream("POST", path, json={**fields, "stream": True}) as answer:
        heard.status = answer.status_code
        heard.price_version = answer.headers.get("x-tramontane-price-version", "")
        if answer.status_code != 200:
            heard.error = json.loads(await answer.aread())
            heard.first.set()
            return heard
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                heard.done = True
            elif line.startswith("data: "):
                _hear(heard, json.loads(line.removeprefix("data: ")))
            if leave_after is not None and heard.words >= leave_after:
                return heard
    return heard


def _hear(heard, chunk):
    heard.request_id = chunk["id"]
    heard.usage = chunk.get("usage") or heard.usage
    for choice in chunk["choices"]:
        heard.text += choice["delta"].get("content") or ""
        heard.finish_reason = choice["finish_reason"] or heard.finish_reason
    if heard.text or heard.finish_reason:
        heard.first.set()


@asynccontextmanager
async def streams(client, count, **fields):
    """So many open at once; those that are still open at the end of the block are left."""
    heard = [Heard() for _ in range(count)]
    tasks = [asyncio.create_task(listen(client, each, **fields)) for each in heard]
    try:
        yield heard, tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def all_begun(heard, tasks):
    """Each has sent something, or has ended."""
    begun = [asyncio.create_task(each.first.wait()) for each in heard]
    try:
        for event, task in zip(begun, tasks, strict=True):
            await asyncio.wait({event, task}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for event in begun:
            event.cancel()


@dataclass
class Load:
    """`answers`: (when it was sent in ms, status, body)."""

    answers: list = field(default_factory=list)
    lost: int = 0

    def statuses(self, since_ms=0):
        return Counter(status for sent_ms, status, _ in self.answers if sent_ms >= since_ms)

    def served(self):
        return {found["id"] for _, status, found in self.answers if status == 200}


@asynccontextmanager
async def load(client, loops, *, pause_s=0.02, **fields):
    """Callers that ask one request after another until the block ends."""
    made = Load()
    stop = asyncio.Event()

    async def keep_asking():
        while not stop.is_set():
            sent_ms = time.time_ns() // 10**6
            try:
                answer = await client.post(CHAT, json=body(**fields))
            except GONE:
                made.lost += 1
                continue
            made.answers.append((sent_ms, answer.status_code, answer.json()))
            await asyncio.sleep(pause_s)

    tasks = [asyncio.create_task(keep_asking()) for _ in range(loops)]
    try:
        yield made
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def heard_until(condition, bound_s=120.0):
    """Polls from within the event loop."""
    async with asyncio.timeout(bound_s):
        while not condition():  # noqa: ASYNC110 - what is awaited happens in other processes
            await asyncio.sleep(0.02)
