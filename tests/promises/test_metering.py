"""M6: everything is metered. Every inference route, streamed or not, finished, cancelled or failed: the record of each
request says what its client saw, counted by others than the platform.
"""

import asyncio
from fractions import Fraction

import pytest
from mistral_common.protocol.fim.request import FIMRequest
from mistral_common.protocol.instruct.messages import UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from gateway.routes.metered import MeteredRoute
from tests.e2e.gateway_world import gateway_world
from tests.promises.callers import CHAT, EMBEDDINGS, FIM, Heard, chat, heard_until, listen
from tests.promises.platform import CODE, EMBED, FAULTY

OVERSHOOT_TOKENS = 32
LEFT_AFTER = 12
SLOW = "[[echo:pace=40]] [[echo:tokens=1500]]"
TEXTS = ["one two three", "four"]


def chat_body(content, **fields):
    return chat(content, FAULTY, max_tokens=1_800, **fields)


def fim_body(content, **fields):
    return {"model": CODE, "prompt": f"def f(x): # {content}", "suffix": "return y", "max_tokens": 1_500, **fields}


def prompt_tokens(path, content):
    if path == CHAT:
        request = ChatCompletionRequest(messages=[UserMessage(content=content)])
        return len(MistralTokenizer.v1().encode_chat_completion(request).tokens)
    asked = fim_body(content)
    return len(MistralTokenizer.v3().encode_fim(FIMRequest(prompt=asked["prompt"], suffix=asked["suffix"])).tokens)


BODIES = {CHAT: chat_body, FIM: fim_body}


class Case:
    """One request of a key of its own, and what its record must say."""

    def __init__(self, platform, organisation):
        self._platform = platform
        self._tenant = platform.key(organisation.id)
        self.client = platform.client(self._tenant)
        self.key_id = self._tenant.key_id

    async def leave(self, path, asked, reached):
        """Ask, and go as soon as the request is so far; until it is settled."""
        task = asyncio.create_task(self.client.post(path, json=asked))
        await heard_until(reached)
        task.cancel()
        await asyncio.wait({task})
        await heard_until(lambda: self._platform.open_requests() == 0)

    def record(self, organisation):
        (row,) = (row for row in self._platform.records(organisation).values() if row.key_id == self.key_id)
        return row


def owed(platform, row):
    (price,) = platform.rows("SELECT * FROM price_versions WHERE version = :version", version=row.price_version)
    fresh = row.prompt_tokens - row.cached_tokens
    total = fresh * price.input_nano + row.cached_tokens * price.cached_nano
    return round(Fraction(total + row.completion_tokens * price.output_nano, 1_000))


def check(platform, row, outcome, prompt, completion, *, streamed):
    assert (row.outcome, row.streamed) == (outcome, streamed)
    assert (row.prompt_tokens, row.completion_tokens, row.cached_tokens) == (prompt, completion, 0)
    assert row.cost_nano == owed(platform, row)
    assert (row.cost_nano > 0) == (prompt > 0)


async def finished(case, path):
    """Whole answers and streams say the same, and count their words as tokens."""
    whole = (await case.client.post(path, json=BODIES[path]("say it"))).json()
    text = whole["choices"][0]["message"]["content"]
    assert len(text.split()) == whole["usage"]["completion_tokens"] == 30
    return whole


@pytest.mark.parametrize("path", [CHAT, FIM])
def test_generated_text_costs_what_its_client_saw(platform, figures, path):
    organisation = platform.tenant("meter", "100")
    case = {
        name: Case(platform, organisation)
        for name in ("whole", "streamed", "left stream", "left whole", "failed stream", "failed whole")
    }
    make = BODIES[path]

    async def run():
        whole = await finished(case["whole"], path)
        said = await listen(case["streamed"].client, Heard(), path, **make("say it"))
        assert said.done
        assert said.usage == whole["usage"]
        assert said.text == whole["choices"][0]["message"]["content"]
        left = await listen(case["left stream"].client, Heard(), path, leave_after=LEFT_AFTER, **make(SLOW))
        await heard_until(lambda: platform.open_requests() == 0)
        await case["left whole"].leave(path, make(SLOW), lambda: platform.running(make("")["model"]) > 0)
        broken = await listen(case["failed stream"].client, Heard(), path, **make("[[echo:fail=7]]"))
        assert broken.finish_reason == "error"
        failed = await case["failed whole"].client.post(path, json=make("[[echo:fail=7]]"))
        assert failed.status_code == 500
        for each in case.values():
            await each.client.aclose()
        return said, left

    said, left = asyncio.run(run())
    platform.until_idle()
    short, long = prompt_tokens(path, "say it"), prompt_tokens(path, SLOW)
    records = {name: each.record(organisation) for name, each in case.items()}
    check(platform, records["whole"], "finished", short, 30, streamed=False)
    check(platform, records["streamed"], "finished", short, said.words, streamed=True)
    billed = records["left stream"].completion_tokens
    assert LEFT_AFTER <= left.words <= billed <= records["left stream"].decoded_tokens
    assert billed <= delivered(platform, records["left stream"].request_id) + OVERSHOOT_TOKENS
    check(platform, records["left stream"], "cancelled", long, billed, streamed=True)
    check(platform, records["left whole"], "cancelled", long, 0, streamed=False)
    check(platform, records["failed stream"], "failed", 0, 0, streamed=True)
    check(platform, records["failed whole"], "failed", 0, 0, streamed=False)
    platform.check_books()
    figures[f"M6 {path} {platform.backend}"] = {"cases": len(case), "different": 0}


def delivered(platform, request_id):
    """What the server's socket had accepted when the client left, as its gateway noted."""
    lines = [
        json_line
        for path in platform.home.logs.glob("gateway*.log")
        for json_line in path.read_text().splitlines()
        if request_id in json_line and "request cut short" in json_line
    ]
    assert len(lines) == 1
    return int(lines[0].partition('"delivered_tokens": ')[2].partition(",")[0])


def test_embeddings_cost_what_their_client_saw(platform, figures):
    organisation = platform.tenant("vectors", "100")
    case = {name: Case(platform, organisation) for name in ("whole", "left", "failed")}
    asked = {"model": EMBED, "input": TEXTS}

    async def run():
        answer = (await case["whole"].client.post(EMBEDDINGS, json=asked)).json()
        with platform.stopped("embed"):
            await case["left"].leave(EMBEDDINGS, asked, lambda: platform.open_requests() > 0)
        failed = await case["failed"].client.post(EMBEDDINGS, json={**asked, "input": ["[[fail]]"]})
        assert failed.status_code == 500
        for each in case.values():
            await each.client.aclose()
        return answer["usage"]

    usage = asyncio.run(run())
    platform.until_idle()
    tokens = sum(len(text.split()) + 2 for text in TEXTS)  # the stand-in counts words, and both ends of a text
    assert (usage["prompt_tokens"], usage["total_tokens"]) == (tokens, tokens)
    records = {name: each.record(organisation) for name, each in case.items()}
    check(platform, records["whole"], "finished", tokens, 0, streamed=False)
    check(platform, records["left"], "cancelled", 0, 0, streamed=False)
    check(platform, records["failed"], "failed", 0, 0, streamed=False)
    figures[f"M6 {EMBEDDINGS} {platform.backend}"] = {"cases": len(case), "different": 0}


async def test_what_takes_a_post_under_v1_is_metered_or_administration():
    async with gateway_world() as world:
        routes = world.server.config.loaded_app.routes
        posts = {
            route.path: route
            for route in routes
            if "POST" in (getattr(route, "methods", None) or ()) and route.path.startswith("/v1/")
        }
        metered = {path for path, route in posts.items() if isinstance(route, MeteredRoute)}
        assert metered == {CHAT, FIM, EMBEDDINGS} == set(world.server.config.loaded_app.metered)
        assert all(path.startswith("/v1/admin/") for path in posts.keys() - metered)
