"""POST /v1/chat/completions, streamed or not."""

from typing import Any

from core.catalog import Tier
from core.queue.base import Admission
from gateway.admission import ChatRequest
from gateway.headers import EVENT_STREAM_TYPE
from gateway.principal import Principal
from gateway.routes.metered import Ask, Exchanged, MeteredRoute
from gateway.routes.relay import Relay
from gateway.schemas.answers import ChatCompletionChunk, ChatCompletionResponse
from gateway.schemas.chat import ChatCompletionRequest, refuse_unserved
from gateway.schemas.parsing import parse
from gateway.services import Services

SAFE_PROMPT = (
    "Answer with care, respect and truth. Help as well as you can within what is safe. Leave out what would harm, "
    "demean or deceive anyone, or treat people unfairly. Keep your answers fair and kind."
)
ANSWERS = {
    "model": ChatCompletionResponse,
    "description": "One body, or with `stream` server-sent events of chat.completion.chunk and then `data: [DONE]`.",
    "content": {
        EVENT_STREAM_TYPE.partition(b";")[0].decode("ascii"): {
            "schema": {"$ref": f"#/components/schemas/{ChatCompletionChunk.__name__}"}
        }
    },
}


def chat_route(services: Services) -> MeteredRoute:
    def prepare(body: bytes) -> Ask:
        asked = parse(ChatCompletionRequest, body)
        tier = services.admitter.tier(asked.model, "chat")
        refuse_unserved(asked)
        request = to_chat_request(asked, tier)
        relay = Relay(tier.name, asked.model, request.n, services.clock, services.metrics)

        def admit(principal: Principal) -> Admission:
            return services.admitter.chat(principal, request)

        async def answer(exchanged: Exchanged) -> None:
            await relay.chat(exchanged, stream=asked.stream)

        return Ask(admit, answer)

    return MeteredRoute(
        "/v1/chat/completions",
        services,
        prepare,
        body=ChatCompletionRequest,
        answers=ANSWERS,
        operation_id="chat_completion",
        summary="Continue a conversation",
        description="Answers at once, or as server-sent events with `stream`. Unknown fields are refused.",
    )


def to_chat_request(asked: ChatCompletionRequest, tier: Tier) -> ChatRequest:
    messages: list[dict[str, Any]] = [message.model_dump() for message in asked.messages]
    if asked.safe_prompt:
        messages.insert(0, {"role": "system", "content": SAFE_PROMPT})
    return ChatRequest(
        tier=tier,
        model=asked.model,
        messages=messages,
        stream=asked.stream,
        temperature=asked.temperature,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        max_tokens=asked.max_tokens,
        min_tokens=asked.min_tokens or 0,
        stop=_stops(asked.stop),
        seed=asked.random_seed,
        n=asked.n or 1,
        presence_penalty=asked.presence_penalty or 0.0,
        frequency_penalty=asked.frequency_penalty or 0.0,
    )


def _stops(stop: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else stop
