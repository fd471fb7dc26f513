"""The OpenAI client, with nothing changed but base URL and key."""

import sys
from typing import Literal

import openai
from pydantic import BaseModel

from tests.conformance.clients import features
from tests.conformance.clients.features import (
    DIMENSIONS,
    ONCE,
    PREFIX,
    SCHEMA,
    SHORT,
    SKY,
    TALK,
    TOOLS,
    Client,
    World,
    check_arguments,
    check_colour,
    check_json,
    surfaced,
    until_limited,
)

LENIENT = {"x-tramontane-mode": "lenient"}


class Sky(BaseModel):
    colour: Literal["blue", "grey"]
    dark: bool


class OpenAI(Client):
    package = "openai"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.client = self._with(world.key)

    def _with(self, key: str) -> openai.OpenAI:
        return openai.OpenAI(api_key=key, base_url=f"{self.world.base_url}/v1", max_retries=0)

    def _chat(self, messages=TALK, model=None, **fields):
        made = self.client.chat.completions.create(model=model or self.world.chat_model, messages=messages, **fields)
        self.count(made.usage)
        return made

    def _stream(self, model=None, **fields):
        asked = {"messages": TALK, "stream": True, **fields}
        return list(self.client.chat.completions.create(model=model or self.world.chat_model, **asked))

    def chat(self):
        choice = self._chat(max_tokens=SHORT).choices[0]
        assert choice.message.role == "assistant"
        assert choice.message.content
        assert choice.finish_reason == "length"

    def stream(self):
        self._whole(self._stream(max_tokens=SHORT))

    def _whole(self, chunks):
        assert chunks[0].choices[0].delta.role == "assistant"
        assert "".join(chunk.choices[0].delta.content for chunk in chunks)
        assert chunks[-1].choices[0].finish_reason == "length"
        assert [chunk for chunk in chunks if chunk.usage] == [chunks[-1]]
        self.count(chunks[-1].usage)

    def _async(self):
        return openai.AsyncOpenAI(api_key=self.world.key, base_url=f"{self.world.base_url}/v1", max_retries=0)

    async def chat_async(self):
        async with self._async() as client:
            ask = client.chat.completions.create
            made = await ask(model=self.world.chat_model, messages=TALK, max_tokens=SHORT)
        self.count(made.usage)

    async def stream_async(self):
        async with self._async() as client:
            ask = client.chat.completions.create
            made = await ask(model=self.world.chat_model, messages=TALK, max_tokens=SHORT, stream=True)
            self._whole([chunk async for chunk in made])

    def tools_round_trip(self):
        self._round_trip(self.world.chat_model)

    def tools_native(self):
        self._round_trip(self.world.code_model)

    def _round_trip(self, model):
        choice = self._chat(model=model, tools=TOOLS, tool_choice="required").choices[0]
        assert choice.finish_reason == "tool_calls"
        calls = choice.message.tool_calls
        for call in calls:
            check_arguments(call.function.arguments)
        results = [{"role": "tool", "content": "blue", "tool_call_id": call.id} for call in calls]
        said = choice.message.model_dump(include={"role", "content", "tool_calls"})
        answer = self._chat([*TALK, said, *results], model, tools=TOOLS, tool_choice="none", max_tokens=SHORT)
        assert answer.choices[0].message.content

    def tools_named(self):
        named = {"type": "function", "function": {"name": SKY}}
        asked = {"tools": TOOLS, "tool_choice": named, "parallel_tool_calls": False}
        [call] = self._chat(**asked).choices[0].message.tool_calls
        assert call.function.name == SKY
        check_arguments(call.function.arguments)

    def tools_stream(self):
        chunks = self._stream(tools=TOOLS, tool_choice="required")
        calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
        assert calls
        for call in calls:
            check_arguments(call.function.arguments)
        self.count(chunks[-1].usage)

    def json_object(self):
        choice = self._chat(max_tokens=40, response_format={"type": "json_object"}).choices[0]
        check_json(choice.message.content, choice.finish_reason)

    def json_schema(self):
        form = {"type": "json_schema", "json_schema": {"name": "sky", "schema": SCHEMA, "strict": True}}
        check_colour(self._chat(response_format=form).choices[0].message.content)

    def parse(self):
        ask = self.client.chat.completions.parse
        made = ask(model=self.world.chat_model, messages=TALK, response_format=Sky)
        assert isinstance(made.choices[0].message.parsed, Sky)
        self.count(made.usage)

    def sampling(self):
        asked = {"max_tokens": SHORT, "temperature": 1.0, "top_p": 0.9, "extra_body": {"random_seed": features.SEED}}
        one, other = (self._chat(**asked).choices[0].message.content for _ in range(2))
        assert one == other
        cut = self._chat(**asked, stop=one[2:5]).choices[0]
        assert one[2:5] not in cut.message.content
        assert cut.finish_reason == "stop"

    def n(self):
        one, two = (self._chat(max_tokens=SHORT, n=n) for n in (1, 2))
        assert [choice.index for choice in two.choices] == [0, 1]
        assert two.usage.prompt_tokens == one.usage.prompt_tokens

    def penalties(self):
        self._chat(max_tokens=SHORT, presence_penalty=1.0, frequency_penalty=-0.5)

    def logprobs(self):
        choice = self._chat(max_tokens=SHORT, logprobs=True, top_logprobs=2).choices[0]
        content = choice.logprobs.content
        assert b"".join(bytes(token.bytes) for token in content).decode(errors="replace").strip()
        assert [len(token.top_logprobs) for token in content] == [2] * SHORT

    def prefix(self):
        said = {"role": "assistant", "content": PREFIX, "prefix": True}
        content = self._chat([*TALK, said], max_tokens=SHORT).choices[0].message.content
        assert content.startswith(PREFIX), content

    def safe_prompt(self):
        bodies = ({}, {"safe_prompt": True})
        plain, safe = (self._chat(max_tokens=SHORT, extra_body=body).usage.prompt_tokens for body in bodies)
        assert plain == safe

    def openai_fields(self):
        messages = [{"role": "developer", "content": "Be brief."}, {**TALK[0], "name": "ann"}]
        asked = {"max_completion_tokens": SHORT, "seed": 1, "user": "me", "store": False, "logit_bias": {}}
        client = self.client.with_options(default_headers=LENIENT)
        raw = client.chat.completions.with_raw_response.create(
            model=self.world.chat_model, messages=messages, stream_options={"include_usage": True}, **asked
        )
        made = raw.parse()
        assert made.usage.completion_tokens <= SHORT
        assert {"user", "messages.name"} <= set(raw.headers["x-tramontane-ignored"].replace(" ", "").split(","))
        self.count(made.usage)

    def idempotency(self):
        asked = {"model": self.world.chat_model, "messages": TALK, "max_tokens": SHORT}
        headers = {"Idempotency-Key": ONCE}
        one, other = (self.client.chat.completions.create(**asked, extra_headers=headers) for _ in range(2))
        assert one.id == other.id
        self.count(one.usage)

    def _embed(self, **fields):
        made = self.client.embeddings.create(model=self.world.embed_model, input=["a cat", "a kitten"], **fields)
        self.count(made.usage)
        return [item.embedding for item in made.data]

    def embeddings(self):
        assert [len(vector) for vector in self._embed(encoding_format="float")] == [DIMENSIONS] * 2

    def embeddings_base64(self):
        packed, plain = self._embed(), self._embed(encoding_format="float")  # base64 is the client's own default
        pairs = [pair for one, other in zip(packed, plain, strict=True) for pair in zip(one, other, strict=True)]
        assert max(abs(one - other) for one, other in pairs) < 1e-6

    def models_list(self):
        assert {self.world.chat_model, self.world.alias} <= {card.id for card in self.client.models.list()}

    def models_retrieve(self):
        assert self.client.models.retrieve(self.world.alias).id == self.world.alias

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
        ask = self._with(self.world.poor_key).chat.completions.create
        return surfaced(402, "1310", lambda: ask(model=self.world.chat_model, messages=TALK))

    def error_429(self):
        ask = self._with(self.world.slow_key).chat.completions.create
        once = lambda: ask(model=self.world.chat_model, messages=TALK, max_tokens=1)  # noqa: E731
        return surfaced(429, "1300", lambda: until_limited(once))

    def error_stream(self):
        return surfaced(400, "1500", lambda: self._stream(model="none"))


if __name__ == "__main__":
    sys.exit(features.run(OpenAI, sys.argv[1:]))
