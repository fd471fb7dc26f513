"""langchain-mistralai: ChatMistralAI and MistralAIEmbeddings."""

import sys
import warnings
from types import SimpleNamespace
from typing import Literal

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_mistralai import ChatMistralAI, MistralAIEmbeddings
from pydantic import BaseModel, ConfigDict, SecretStr

from tests.conformance.clients import features
from tests.conformance.clients.features import (
    DIMENSIONS,
    SCHEMA,
    SEED,
    SHORT,
    SKY,
    TALK,
    TOOLS,
    Client,
    World,
    check_colour,
    check_json,
    surfaced,
    until_limited,
)

PLACES = {"Paris", "Oslo"}


class Sky(BaseModel):
    """The sky."""

    model_config = ConfigDict(extra="forbid")

    colour: Literal["blue", "grey"]
    dark: bool


class LangChain(Client):
    package = "langchain-mistralai"
    silent_tiers = ("mistral-embed",)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        warnings.filterwarnings("ignore", "Could not download mistral tokenizer")  # no hub: it then counts characters
        self.model = self._with()

    def _with(self, key=None, model=None, **fields):
        made = {"max_tokens": SHORT, "max_retries": 1, **fields}
        url = f"{self.world.base_url}/v1"
        return ChatMistralAI(
            model=model or self.world.chat_model, api_key=SecretStr(key or self.world.key), base_url=url, **made
        )

    def _told(self, answer):
        usage = answer.usage_metadata
        self.count(SimpleNamespace(prompt_tokens=usage["input_tokens"], completion_tokens=usage["output_tokens"]))
        return answer

    def chat(self):
        answer = self._told(self.model.invoke(TALK))
        assert answer.content
        assert answer.response_metadata["finish_reason"] == "length"

    def _whole(self, chunks):
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        return self._told(whole)

    def stream(self):
        assert self._whole(list(self.model.stream(TALK))).content

    async def chat_async(self):
        self._told(await self._with().ainvoke(TALK))

    async def stream_async(self):
        model = self._with()
        assert self._whole([chunk async for chunk in model.astream(TALK)]).content

    def tools_round_trip(self):
        self._round_trip(self.world.chat_model)

    def tools_native(self):
        self._round_trip(self.world.code_model)

    def _round_trip(self, model):
        asking = self._with(model=model, max_tokens=None).bind_tools(TOOLS, tool_choice="any")
        answer = self._told(asking.invoke(TALK))
        assert answer.tool_calls
        assert {call["args"]["place"] for call in answer.tool_calls} <= PLACES
        results = [ToolMessage("blue", tool_call_id=call["id"], name=call["name"]) for call in answer.tool_calls]
        said = [HumanMessage(TALK[0]["content"]), answer, *results]
        assert self._told(self._with(model=model).invoke(said)).content

    def tools_named(self):
        model = self._with(max_tokens=None).bind_tools(TOOLS, tool_choice=SKY, parallel_tool_calls=False)
        [call] = self._told(model.invoke(TALK)).tool_calls
        assert call["name"] == SKY
        assert call["args"]["place"] in PLACES

    def tools_stream(self):
        model = self._with(max_tokens=None).bind_tools(TOOLS, tool_choice="any")
        answer = self._whole(list(model.stream(TALK)))
        assert {call["args"]["place"] for call in answer.tool_calls} <= PLACES

    def json_object(self):
        answer = self._told(self._with(max_tokens=40).bind(response_format={"type": "json_object"}).invoke(TALK))
        check_json(answer.content, answer.response_metadata["finish_reason"])

    def json_schema(self):
        form = {"type": "json_schema", "json_schema": {"name": "sky", "schema": SCHEMA, "strict": True}}
        check_colour(self._told(self._with(max_tokens=None).bind(response_format=form).invoke(TALK)).content)

    def parse(self):
        for method in ("json_schema", "function_calling"):
            model = self._with(max_tokens=None).with_structured_output(Sky, method=method, include_raw=True)
            found = model.invoke(TALK)
            assert isinstance(found["parsed"], Sky), found["parsing_error"]
            self._told(found["raw"])

    def sampling(self):
        model = self._with(random_seed=SEED, top_p=0.9, temperature=1.0)
        one, other = (self._told(model.invoke(TALK)).content for _ in range(2))
        assert one == other
        cut = self._told(model.invoke(TALK, stop=[one[2:5]]))
        assert one[2:5] not in cut.content

    def prefix(self):
        said = AIMessage(features.PREFIX, additional_kwargs={"prefix": True})
        answer = self._told(self.model.invoke([HumanMessage(TALK[0]["content"]), said]))
        assert answer.content.startswith(features.PREFIX), answer.content

    def safe_prompt(self):
        models = (self._with(safe_mode=safe) for safe in (False, True))
        plain, safe = (self._told(model.invoke(TALK)).usage_metadata["input_tokens"] for model in models)
        assert plain == safe

    def n(self):
        raise features.NotOfferedError("takes the first choice")

    def embeddings(self):
        made = MistralAIEmbeddings(
            model=self.world.embed_model,
            api_key=SecretStr(self.world.key),
            endpoint=f"{self.world.base_url}/v1/",
        )
        vectors = [*made.embed_documents(["a cat", "a kitten"]), made.embed_query("a cat")]
        assert [len(vector) for vector in vectors] == [DIMENSIONS] * 3
        return "tells no usage"

    def error_401(self):
        return surfaced(401, "401", lambda: self._with("wrong").invoke(TALK))

    def error_400_model(self):
        return surfaced(400, "1500", lambda: self._with(model="none").invoke(TALK))

    def error_400_order(self):
        return surfaced(400, "3230", lambda: self.model.invoke(features.WRONG_ORDER))

    def error_400_arguments(self):
        return surfaced(400, "too large for model", lambda: self.model.invoke(features.TOO_LONG))

    def error_422(self):
        return surfaced(422, "max_tokens", lambda: self._with(max_tokens=features.BEYOND_CONTEXT).invoke(TALK))

    def error_402(self):
        return surfaced(402, "1310", lambda: self._with(self.world.poor_key).invoke(TALK))

    def error_429(self):
        model = self._with(self.world.slow_key, max_tokens=1)
        return surfaced(429, "1300", lambda: until_limited(lambda: model.invoke(TALK)))

    def error_stream(self):
        return surfaced(400, "1500", lambda: list(self._with(model="none").stream(TALK)))


if __name__ == "__main__":
    sys.exit(features.run(LangChain, sys.argv[1:]))
