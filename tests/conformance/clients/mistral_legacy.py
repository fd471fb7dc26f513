"""What somebody runs who never upgraded: MistralClient 0.4.2."""

import sys

from mistralai.async_client import MistralAsyncClient
from mistralai.client import MistralClient

from tests.conformance.clients import features
from tests.conformance.clients.features import (
    DIMENSIONS,
    SEED,
    SHORT,
    TALK,
    TOOLS,
    Client,
    World,
    check_arguments,
    check_json,
    surfaced,
    until_limited,
)

TRIES = 0  # its own default tries an error of 429 or 5xx five times, 60 s in all


class Legacy(Client):
    package = "mistralai"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.client = self._with(world.key)

    def _with(self, key: str) -> MistralClient:
        return MistralClient(api_key=key, endpoint=self.world.base_url, max_retries=TRIES)

    def _chat(self, messages=TALK, model=None, **fields):
        answer = self.client.chat(model=model or self.world.chat_model, messages=messages, **fields)
        self.count(answer.usage)
        return answer

    def chat(self):
        choice = self._chat(max_tokens=SHORT).choices[0]
        assert choice.message.role == "assistant"
        assert choice.message.content
        assert choice.finish_reason.value == "length"

    def stream(self):
        self._whole(list(self.client.chat_stream(model=self.world.chat_model, messages=TALK, max_tokens=SHORT)))

    def _whole(self, chunks):
        assert chunks[0].choices[0].delta.role == "assistant"
        assert "".join(chunk.choices[0].delta.content for chunk in chunks)
        assert chunks[-1].choices[0].finish_reason is not None
        assert [chunk for chunk in chunks if chunk.usage] == [chunks[-1]]
        self.count(chunks[-1].usage)

    async def chat_async(self):
        client = MistralAsyncClient(api_key=self.world.key, endpoint=self.world.base_url, max_retries=TRIES)
        answer = await client.chat(model=self.world.chat_model, messages=TALK, max_tokens=SHORT)
        await client.close()
        self.count(answer.usage)

    async def stream_async(self):
        client = MistralAsyncClient(api_key=self.world.key, endpoint=self.world.base_url, max_retries=TRIES)
        made = client.chat_stream(model=self.world.chat_model, messages=TALK, max_tokens=SHORT)
        self._whole([chunk async for chunk in made])
        await client.close()

    def tools_round_trip(self):
        self._round_trip(self.world.chat_model)

    def tools_native(self):
        self._round_trip(self.world.code_model)

    def _round_trip(self, model):
        choice = self._chat(model=model, tools=TOOLS, tool_choice="any").choices[0]
        assert choice.finish_reason.value == "tool_calls"
        calls = choice.message.tool_calls
        for call in calls:
            check_arguments(call.function.arguments)
        results = [
            {"role": "tool", "content": "blue", "name": call.function.name, "tool_call_id": call.id} for call in calls
        ]
        assert self._chat([*TALK, choice.message, *results], model, tools=TOOLS, tool_choice="none", max_tokens=SHORT)

    def tools_stream(self):
        made = self.client.chat_stream(model=self.world.chat_model, messages=TALK, tools=TOOLS, tool_choice="any")
        chunks = list(made)
        calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
        assert calls
        for call in calls:
            check_arguments(call.function.arguments)
        self.count(chunks[-1].usage)

    def json_object(self):
        choice = self._chat(max_tokens=40, response_format={"type": "json_object"}).choices[0]
        check_json(choice.message.content, choice.finish_reason.value)

    def sampling(self):
        asked = {"max_tokens": SHORT, "random_seed": SEED, "top_p": 0.9, "temperature": 1.0}
        one, other = (self._chat(**asked).choices[0].message.content for _ in range(2))
        assert one == other
        return "no argument for stop"

    def safe_prompt(self):
        plain, safe = (self._chat(max_tokens=SHORT, safe_mode=safe).usage.prompt_tokens for safe in (False, True))
        assert plain == safe

    def embeddings(self):
        made = self.client.embeddings(model=self.world.embed_model, input=["a cat", "a kitten"])
        assert [len(item.embedding) for item in made.data] == [DIMENSIONS] * 2
        self.count(made.usage)

    def models_list(self):
        assert {self.world.chat_model, self.world.alias} <= {card.id for card in self.client.list_models().data}

    def fim(self):
        made = self.client.completion(model=self.world.code_model, prompt="def add(", suffix="return", max_tokens=SHORT)
        assert made.choices[0].message.content
        self.count(made.usage)

    def fim_stream(self):
        self._whole(list(self.client.completion_stream(model=self.world.code_model, prompt="def ", max_tokens=SHORT)))

    def error_401(self):
        return surfaced(401, "Unauthorized", lambda: self._with("wrong").list_models())

    def error_400_model(self):
        return surfaced(400, "Invalid model: none", lambda: self._chat(model="none"))

    def error_400_order(self):
        return surfaced(400, "3230", lambda: self._chat(features.WRONG_ORDER))

    def error_400_arguments(self):
        return surfaced(400, "too large for model", lambda: self._chat(features.TOO_LONG))

    def error_422(self):
        return surfaced(422, "max_tokens", lambda: self._chat(max_tokens=features.BEYOND_CONTEXT))

    def error_402(self):
        poor = self._with(self.world.poor_key)
        return surfaced(402, "1310", lambda: poor.chat(model=self.world.chat_model, messages=TALK))

    def error_429(self):
        slow = self._with(self.world.slow_key)
        ask = lambda: slow.chat(model=self.world.chat_model, messages=TALK, max_tokens=1)  # noqa: E731
        return surfaced(429, "1300", lambda: until_limited(ask))

    def error_stream(self):
        return surfaced(400, "1500", lambda: list(self.client.chat_stream(model="none", messages=TALK)))


if __name__ == "__main__":
    sys.exit(features.run(Legacy, sys.argv[1:]))
