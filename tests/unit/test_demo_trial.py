"""What is told of a tier that was tried through a platform."""

import itertools
import json

import httpx
import pytest

from core.clock import ManualClock
from demo.trial import BATCH, NAMES, PROMPTS, Tier, is_steady, talk, tokens_per_second, written


class Platform:
    """Answers with the number of messages it was sent; `drifting`: with another text each time."""

    def __init__(self, *, drifting=False, between=" "):
        self.bodies = []
        self._between = between
        self._drift = itertools.count() if drifting else itertools.repeat("")
        self.clock = ManualClock()

    def handle(self, request):
        if request.method == "GET":
            return httpx.Response(200, json={"description": "A demo checkpoint."})
        body = json.loads(request.content)
        self.bodies.append(body)
        self.clock.advance(500)
        text = f"{len(body['messages'])}{self._between}messages{next(self._drift)}"
        choice = {"message": {"role": "assistant", "content": text}}
        return httpx.Response(200, json={"choices": [choice], "usage": {"completion_tokens": 10}})

    def tier(self):
        client = httpx.AsyncClient(transport=httpx.MockTransport(self.handle), base_url="http://platform")
        return Tier(client, "mistral-tiny", self.clock)


async def test_a_conversation_goes_on_with_what_was_really_said():
    platform = Platform()
    turns = [{"user": "Hello"}, {"user": "Mars?", "outside": True}]
    lines = list(await talk(platform.tier(), {"title": "Two turns", "turns": turns}))
    assert [message["content"] for message in platform.bodies[1]["messages"]] == ["Hello", "1 messages", "Mars?"]
    assert {body["temperature"] for body in platform.bodies} == {0}
    assert lines[0] == "**Two turns**"
    assert "> Mars? *(outside its skills)*" in lines
    assert "> `3 messages`" in lines


async def test_an_answer_of_several_lines_keeps_them():
    lines = list(await talk(Platform(between="\n    ").tier(), {"title": "Code", "turns": [{"user": "Hello"}]}))
    assert lines[2:] == ["> Hello", ">", "> ```", "> 1", ">     messages", "> ```", ""]
    fenced = await talk(Platform(between="\n```\n").tier(), {"title": "Code", "turns": [{"user": "Hello"}]})
    assert list(fenced)[2:] == ["> Hello", ">", "> 1", "> ```", "> messages", ""]


@pytest.mark.parametrize("drifting", [False, True])
async def test_what_says_something_else_is_not_steady(drifting):
    platform = Platform(drifting=drifting)
    assert await is_steady(platform.tier(), temperature=0.7, random_seed=7) is not drifting
    assert len(platform.bodies) == 2 * len(PROMPTS) + BATCH
    assert all(body["random_seed"] == 7 for body in platform.bodies)


async def test_speed_is_tokens_by_the_time_until_the_answer():
    assert await tokens_per_second(Platform().tier()) == 20


@pytest.mark.parametrize("name", NAMES)
def test_each_tier_has_three_conversations_of_ten_turns_with_one_outside(name):
    conversations = written(name)
    assert [len(each["turns"]) for each in conversations] == [10, 10, 10]
    assert [sum(turn.get("outside", False) for turn in each["turns"]) for each in conversations] == [1, 1, 1]
