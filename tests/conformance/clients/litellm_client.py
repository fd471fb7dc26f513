"""LiteLLM as a client: its mistral/ provider, pointed at another base URL."""

import os
import sys
from typing import Literal

from pydantic import BaseModel

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it asks a server for prices when it is imported

import litellm

from tests.conformance.clients import features
from tests.conformance.clients.features import (
    DIMENSIONS,
    ONCE,
    SCHEMA,
    SEED,
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


class Sky(BaseModel):
    colour: Literal["blue", "grey"]
    dark: bool


class LiteLLM(Client):
    package = "litellm"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.base_url = f"{world.base_url}/v1"

    def _asked(self, model=None, key=None, **fields):
        return {
            "model": f"mistral/{model or self.world.chat_model}",
            "messages": TALK,
            "api_base": self.base_url,
            "api_key": key or self.world.key,
            "num_retries": 0,
            **fields,
        }

    def _chat(self, model=None, **fields):
        made = litellm.completion(**self._asked(model, **fields))
        self.count(made.usage)
        return made

    def _stream(self, model=None, **fields):
        return list(litellm.completion(**self._asked(model, stream=True, **self._usage(), **fields)))

    def _usage(self):
        return {"stream_options": {"include_usage": True}}

    def chat(self):
        choice = self._chat(max_tokens=SHORT).choices[0]
        assert choice.message.content
        assert choice.finish_reason == "length"

    def _whole(self, chunks):
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        [usage] = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
        self.count(usage)

    def stream(self):
        self._whole(self._stream(max_tokens=SHORT))

    async def chat_async(self):
        self.count((await litellm.acompletion(**self._asked(max_tokens=SHORT))).usage)

    async def stream_async(self):
        made = await litellm.acompletion(**self._asked(max_tokens=SHORT, stream=True, **self._usage()))
        self._whole([chunk async for chunk in made])

    def tools_round_trip(self):
        self._round_trip(self.world.chat_model)

    def tools_native(self):
        self._round_trip(self.world.code_model)

    def _round_trip(self, model):
        message = self._chat(model, tools=TOOLS, tool_choice="required").choices[0].message
        for call in message.tool_calls:
            check_arguments(call.function.arguments)
        results = [{"role": "tool", "content": "blue", "tool_call_id": call.id} for call in message.tool_calls]
        said = [*TALK, message.model_dump(include={"role", "content", "tool_calls"}), *results]
        answer = self._chat(model, messages=said, tools=TOOLS, tool_choice="none", max_tokens=SHORT)
        assert answer.choices[0].message.content

    def tools_named(self):
        named = {"type": "function", "function": {"name": SKY}}
        calls = self._chat(tools=TOOLS, tool_choice=named, max_tokens=SHORT).choices[0].message.tool_calls
        assert [call.function.name for call in calls or ()] == [SKY]

    def tools_stream(self):
        chunks = self._stream(tools=TOOLS, tool_choice="required")
        calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or ()]
        assert calls
        for call in calls:
            check_arguments(call.function.arguments)
        self.count(next(chunk.usage for chunk in chunks if getattr(chunk, "usage", None)))

    def json_object(self):
        choice = self._chat(max_tokens=40, response_format={"type": "json_object"}).choices[0]
        check_json(choice.message.content, choice.finish_reason)

    def json_schema(self):
        form = {"type": "json_schema", "json_schema": {"name": "sky", "schema": SCHEMA, "strict": True}}
        check_colour(self._chat(response_format=form).choices[0].message.content)

    def parse(self):
        Sky.model_validate_json(self._chat(response_format=Sky).choices[0].message.content)

    def sampling(self):
        asked = {"max_tokens": SHORT, "seed": SEED, "top_p": 0.9, "temperature": 1.0}
        one, other = (self._chat(**asked).choices[0].message.content for _ in range(2))
        assert one == other
        cut = self._chat(**asked, stop=[one[2:5]]).choices[0]
        assert one[2:5] not in cut.message.content

    def safe_prompt(self):
        bodies = ({}, {"safe_prompt": True})
        plain, safe = (self._chat(max_tokens=SHORT, extra_body=body).usage.prompt_tokens for body in bodies)
        assert plain == safe

    def openai_fields(self):
        made = self._chat(max_completion_tokens=SHORT, seed=1)
        assert made.usage.completion_tokens <= SHORT
        return "translated by the client"

    def idempotency(self):
        headers = {"Idempotency-Key": ONCE}
        one, other = (litellm.completion(**self._asked(max_tokens=SHORT, extra_headers=headers)) for _ in range(2))
        assert one.id == other.id
        self.count(one.usage)

    def embeddings(self):
        asked = {"api_base": self.base_url, "api_key": self.world.key, "input": ["a cat", "a kitten"]}
        made = litellm.embedding(model=f"mistral/{self.world.embed_model}", **asked)
        assert [len(item["embedding"]) for item in made.data] == [DIMENSIONS] * 2
        self.count(made.usage)

    def fim(self):
        made = litellm.text_completion(
            model=f"text-completion-codestral/{self.world.code_model}",
            api_base=f"{self.base_url}/fim/completions",
            api_key=self.world.key,
            prompt="def add(",
            suffix="return",
            max_tokens=SHORT,
        )
        assert made.choices[0].text
        self.count(made.usage)

    def error_401(self):
        return surfaced(401, "Unauthorized", lambda: self._chat(key="wrong"))

    def error_400_model(self):
        return surfaced(400, "Invalid model", lambda: self._chat("none"))

    def error_400_order(self):
        return surfaced(400, "Expected last role", lambda: self._chat(messages=features.WRONG_ORDER))

    def error_400_arguments(self):
        return surfaced(400, "too large for model", lambda: self._chat(messages=features.TOO_LONG))

    def error_422(self):
        return surfaced(422, "max_tokens", lambda: self._chat(max_tokens=features.BEYOND_CONTEXT))

    def error_402(self):
        return surfaced(402, "credit", lambda: self._chat(key=self.world.poor_key))

    def error_429(self):
        ask = lambda: litellm.completion(**self._asked(key=self.world.slow_key, max_tokens=1))  # noqa: E731
        return surfaced(429, "limit", lambda: until_limited(ask))

    def error_stream(self):
        return surfaced(400, "Invalid model", lambda: self._stream("none"))


if __name__ == "__main__":
    sys.exit(features.run(LiteLLM, sys.argv[1:]))
