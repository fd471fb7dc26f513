"""Stock clients against the running platform with the real engines: unchanged but for base URL and key.

What they were told is what was metered, to the token.
"""

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from langchain_mistralai import ChatMistralAI, MistralAIEmbeddings
from mistralai.client import Mistral
from pydantic import SecretStr

from tests.conformance.suite import HERE, OLDEST, python_of, run_client
from tests.conformance.world import metered, open_world
from tests.e2e.installation import BOUND_S, Installation, until

TALK = [{"role": "user", "content": "Tell me about the wind."}]


class Teller:
    """Adds up what clients were told, and compares it with what is metered for one key."""

    def __init__(self, installation: Installation):
        self._installation = installation
        made = installation.quick("keys", "create", "--workspace", "default", "--org", "default", "--name", "client")
        self.key, self.key_id = made["key"], made["id"]
        self.base_url = installation.quick("status")["base_url"]
        self.told = {"prompt_tokens": 0, "completion_tokens": 0}

    def add(self, prompt_tokens: int, completion_tokens: int) -> None:
        self.told["prompt_tokens"] += prompt_tokens
        self.told["completion_tokens"] += completion_tokens

    def metered(self) -> dict[str, int]:
        return metered(self._installation, self.key_id)


@pytest.fixture
def teller(platform):
    return Teller(platform)


@pytest.mark.parametrize(
    ("client", "python"),
    [(OLDEST, python_of(OLDEST)), ("mistralai-3.7.0", HERE), ("openai-3.54.0", HERE)],
    ids=["oldest-mistralai", "newest-mistralai", "openai"],
)
def test_a_client_can_do_what_it_offers(platform, client, python):
    """Every feature of tests/conformance/clients; `make conformance` runs all generations."""
    world, key_id = open_world(platform, client)
    told = run_client(client, python, world)
    assert told.failures == {}
    assert metered(platform, key_id) == told.tokens


def test_the_newest_mistral_client_many_at_once(teller):
    async def run():
        client = Mistral(api_key=teller.key, server_url=teller.base_url)
        async with client:
            calls = [client.chat.complete_async(model="mistral-tiny", messages=TALK, max_tokens=8) for _ in range(8)]
            for answer in await asyncio.gather(*calls):
                teller.add(answer.usage.prompt_tokens, answer.usage.completion_tokens)

    asyncio.run(run())
    assert teller.metered() == teller.told


def test_langchain(teller):
    chat = ChatMistralAI(
        model="mistral-tiny", api_key=SecretStr(teller.key), base_url=f"{teller.base_url}/v1", max_tokens=10
    )
    answer = chat.invoke("Tell me about the wind.")
    teller.add(answer.usage_metadata["input_tokens"], answer.usage_metadata["output_tokens"])
    streamed = None
    for chunk in chat.stream("Tell me about the wind."):
        streamed = chunk if streamed is None else streamed + chunk
    teller.add(streamed.usage_metadata["input_tokens"], streamed.usage_metadata["output_tokens"])
    chat.client.close()
    asyncio.run(chat.async_client.aclose())
    assert teller.metered() == teller.told


@pytest.mark.filterwarnings("ignore:Could not download mistral tokenizer")  # no hub here; it then counts characters
def test_langchain_embeddings(teller):
    embedder = MistralAIEmbeddings(
        model="mistral-embed", api_key=SecretStr(teller.key), endpoint=f"{teller.base_url}/v1/"
    )
    near, far = embedder.embed_documents(["a kitten sleeps", "an invoice is due"])
    query = embedder.embed_query("a cat dozes")
    assert dot(query, near) > dot(query, far)
    embedder.client.close()
    asyncio.run(embedder.async_client.aclose())
    assert teller.metered()["prompt_tokens"] > 0


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def delivered_tokens(platform: Installation, request_id: str) -> int:
    """From the gateway's log: the tokens whose send the server accepted before the client left."""
    for path in sorted(Path(platform.home.root, "logs").glob("gateway*.log")):
        for line in path.read_text().splitlines():
            if request_id in line and '"client left"' in line:
                return json.loads(line)["delivered_tokens"]
    raise AssertionError(f"the gateway's log says nothing of {request_id}")


def test_a_stream_cut_in_the_middle_is_billed_as_delivered(teller, platform):
    body = {"model": "mistral-tiny", "messages": TALK, "stream": True, "max_tokens": 1500}
    headers = {"Authorization": f"Bearer {teller.key}"}
    with httpx.stream("POST", f"{teller.base_url}/v1/chat/completions", json=body, headers=headers) as answer:
        lines = answer.iter_lines()
        chunks = [line for line, _ in zip(lines, range(20), strict=False) if line.startswith("data: ")]
    request_id = json.loads(chunks[0].removeprefix("data: "))["id"]
    until(lambda: platform.json("status")["reservations_open"] == 0)
    delivered = delivered_tokens(platform, request_id)
    metered = teller.metered()
    assert len(chunks) - 1 <= delivered <= metered["completion_tokens"] <= delivered + 32
    assert metered["completion_tokens"] < 1500
    assert metered["prompt_tokens"] > 0


def test_sixty_four_streams_half_of_them_cut_leave_nothing_behind(teller, platform):
    limits = httpx.Limits(max_connections=64)
    body = {"model": "mistral-tiny", "messages": TALK, "stream": True, "max_tokens": 48}
    headers = {"Authorization": f"Bearer {teller.key}"}

    async def stream(client: httpx.AsyncClient, number: int) -> bool:
        url = f"{teller.base_url}/v1/chat/completions"
        async with client.stream("POST", url, json=body, headers=headers) as answer:
            assert answer.status_code == 200
            seen = 0
            async for line in answer.aiter_lines():
                seen += line.startswith("data: ")
                if number % 2 and seen == 3:
                    return False
                if line == "data: [DONE]":
                    return True
        raise AssertionError("a stream ended without [DONE]")

    async def run() -> list[bool]:
        async with httpx.AsyncClient(limits=limits, timeout=BOUND_S) as client:
            return await asyncio.gather(*(stream(client, number) for number in range(64)))

    assert sum(asyncio.run(run())) >= 32
    tier = platform.json("status")["tiers"]["mistral-tiny"]
    until(lambda: platform.json("status")["reservations_open"] == 0)
    tier = platform.json("status")["tiers"]["mistral-tiny"]
    assert (tier["queued"], tier["running"], tier["workers"]) == (0, 0, 1)
