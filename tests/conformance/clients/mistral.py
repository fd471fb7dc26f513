"""The Mistral clients from 1.0 to 3.7: one class, imported from two places."""

import inspect
import sys
from typing import Literal

from pydantic import BaseModel

from tests.conformance.clients import features
from tests.conformance.clients.features import (
    DIMENSIONS,
    ONCE,
    PREFIX,
    SCHEMA,
    SEED,
    SHORT,
    SKY,
    TALK,
    TOOLS,
    Client,
    NotOfferedError,
    World,
    check_arguments,
    check_colour,
    check_json,
    needs,
    surfaced,
    until_limited,
)

try:
    from mistralai.client import Mistral  # 2.x, 3.x
except ImportError:
    from mistralai import Mistral  # 1.x


class Sky(BaseModel):
    colour: Literal["blue", "grey"]
    dark: bool


class Current(Client):
    package = "mistralai"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.client = self._with(world.key)

    def _with(self, key: str) -> Mistral:
        return Mistral(api_key=key, server_url=self.world.base_url)

    def _chat(self, messages=TALK, model=None, **fields):
        needs(self.client.chat.complete, *fields)
        answer = self.client.chat.complete(model=model or self.world.chat_model, messages=messages, **fields)
        self.count(answer.usage)
        return answer

    def _stream(self, messages=TALK, model=None, **fields):
        made = self.client.chat.stream(model=model or self.world.chat_model, messages=messages, **fields)
        return [event.data for event in made]

    def chat(self):
        answer = self._chat(max_tokens=SHORT)
        assert answer.choices[0].message.role == "assistant"
        assert answer.choices[0].message.content
        assert answer.choices[0].finish_reason == "length"

    def stream(self):
        self._whole(self._stream(max_tokens=SHORT))

    def _whole(self, chunks):
        assert chunks[0].choices[0].delta.role == "assistant"
        assert "".join(chunk.choices[0].delta.content for chunk in chunks)
        assert chunks[-1].choices[0].finish_reason == "length"
        assert [chunk for chunk in chunks if chunk.usage] == [chunks[-1]]
        self.count(chunks[-1].usage)

    async def chat_async(self):
        answer = await self.client.chat.complete_async(model=self.world.chat_model, messages=TALK, max_tokens=SHORT)
        self.count(answer.usage)

    async def stream_async(self):
        client = self._with(self.world.key)
        made = await client.chat.stream_async(model=self.world.chat_model, messages=TALK, max_tokens=SHORT)
        self._whole([event.data async for event in made])

    def tools_round_trip(self):
        self._round_trip(self.world.chat_model)

    def tools_native(self):
        self._round_trip(self.world.code_model)

    def _round_trip(self, model):
        choice = self._chat(model=model, tools=TOOLS, tool_choice="any").choices[0]
        assert choice.finish_reason == "tool_calls"
        calls = choice.message.tool_calls
        for call in calls:
            check_arguments(call.function.arguments)
        results = [
            {"role": "tool", "content": "blue", "name": call.function.name, "tool_call_id": call.id} for call in calls
        ]
        said = {"role": "assistant", "content": "", "tool_calls": calls}
        answer = self._chat([*TALK, said, *results], model, tools=TOOLS, tool_choice="none", max_tokens=SHORT)
        assert answer.choices[0].message.content

    def tools_named(self):
        named = {"type": "function", "function": {"name": SKY}}
        if "RequestToolChoice" not in str(
            inspect.signature(self.client.chat.complete).parameters["tool_choice"].annotation
        ):
            raise NotOfferedError("tool_choice is a word")
        asked = {"tools": TOOLS, "tool_choice": named, "parallel_tool_calls": False}
        [call] = self._chat(**asked).choices[0].message.tool_calls
        assert call.function.name == SKY
        check_arguments(call.function.arguments)

    def tools_stream(self):
        chunks = self._stream(tools=TOOLS, tool_choice="any")
        calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
        assert calls
        for call in calls:
            check_arguments(call.function.arguments)
        self.count(chunks[-1].usage)

    def json_object(self):
        choice = self._chat(max_tokens=40, response_format={"type": "json_object"}).choices[0]
        check_json(choice.message.content, choice.finish_reason)

    def json_schema(self):
        if not hasattr(self.client.chat, "parse"):
            raise NotOfferedError("response_format knows text and json_object")
        form = {"type": "json_schema", "json_schema": {"name": "sky", "schema": SCHEMA, "strict": True}}
        check_colour(self._chat(response_format=form).choices[0].message.content)

    def parse(self):
        if not hasattr(self.client.chat, "parse"):
            raise NotOfferedError
        answer = self.client.chat.parse(model=self.world.chat_model, messages=TALK, response_format=Sky)
        assert isinstance(answer.choices[0].message.parsed, Sky)
        self.count(answer.usage)

    def sampling(self):
        asked = {"max_tokens": SHORT, "random_seed": SEED, "top_p": 0.9, "temperature": 1.0}
        one, other = (self._chat(**asked).choices[0].message.content for _ in range(2))
        assert one == other
        cut = self._chat(**asked, stop=[one[2:5]]).choices[0]
        assert one[2:5] not in cut.message.content
        assert cut.finish_reason == "stop"

    def n(self):
        one, two = (self._chat(max_tokens=SHORT, n=n) for n in (1, 2))
        assert [choice.index for choice in two.choices] == [0, 1]
        assert two.usage.prompt_tokens == one.usage.prompt_tokens

    def penalties(self):
        self._chat(max_tokens=SHORT, presence_penalty=1.0, frequency_penalty=-0.5)

    def logprobs(self):
        content = self._chat(max_tokens=SHORT, logprobs=True, top_logprobs=2).choices[0].logprobs.content
        assert len(content) == SHORT
        assert all(token.logprob <= 0 for token in content)

    def prefix(self):
        said = {"role": "assistant", "content": PREFIX, "prefix": True}
        content = self._chat([*TALK, said], max_tokens=SHORT).choices[0].message.content
        assert content.startswith(PREFIX), content

    def safe_prompt(self):
        plain, safe = (self._chat(max_tokens=SHORT, safe_prompt=safe).usage.prompt_tokens for safe in (False, True))
        assert plain == safe

    def idempotency(self):
        ask = self.client.chat.complete
        needs(ask, "http_headers")
        asked = {"model": self.world.chat_model, "messages": TALK, "max_tokens": SHORT}
        headers = {"Idempotency-Key": ONCE}
        one, other = (ask(**asked, http_headers=headers) for _ in range(2))
        assert one.id == other.id
        self.count(one.usage)

    def embeddings(self):
        made = self.client.embeddings.create(model=self.world.embed_model, inputs=["a cat", "a kitten"])
        assert [len(item.embedding) for item in made.data] == [DIMENSIONS] * 2
        self.count(made.usage)

    def models_list(self):
        cards = {card.id: card for card in self.client.models.list().data}
        assert cards[self.world.chat_model].capabilities.completion_chat is True
        assert self.world.alias in cards

    def models_retrieve(self):
        assert self.client.models.retrieve(model_id=self.world.alias).id == self.world.alias

    def fim(self):
        ask = self.client.fim.complete
        made = ask(model=self.world.code_model, prompt="def add(", suffix="return", max_tokens=SHORT)
        assert made.choices[0].message.content
        self.count(made.usage)

    def fim_stream(self):
        made = self.client.fim.stream(model=self.world.code_model, prompt="def add(", max_tokens=SHORT)
        self._whole([event.data for event in made])

    def error_401(self):
        return surfaced(401, "Unauthorized", self._with("wrong").models.list)

    def error_400_model(self):
        return surfaced(400, "1500", lambda: self._chat(model="none"))

    def error_400_order(self):
        return surfaced(400, "3230", lambda: self._chat(features.WRONG_ORDER))

    def error_400_arguments(self):
        return surfaced(400, "too large for model", lambda: self._chat(features.TOO_LONG))

    def error_422(self):
        return surfaced(422, "max_tokens", lambda: self._chat(max_tokens=features.BEYOND_CONTEXT))

    def error_402(self):
        poor = self._with(self.world.poor_key)
        return surfaced(402, "1310", lambda: poor.chat.complete(model=self.world.chat_model, messages=TALK))

    def error_429(self):
        slow = self._with(self.world.slow_key)
        ask = lambda: slow.chat.complete(model=self.world.chat_model, messages=TALK, max_tokens=1)  # noqa: E731
        return surfaced(429, "1300", lambda: until_limited(ask))

    def error_stream(self):
        return surfaced(400, "1500", lambda: self._stream(model="none"))


if __name__ == "__main__":
    sys.exit(features.run(Current, sys.argv[1:]))
