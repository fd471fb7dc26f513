"""POST /v1/chat/completions, streamed or not."""

from core.queue.base import Admission, Claim
from gateway.headers import EVENT_STREAM_TYPE
from gateway.principal import Principal
from gateway.routes.metered import Ask, Exchanged, MeteredRoute
from gateway.routes.relay import Relay
from gateway.schemas.answers import ChatCompletionChunk, ChatCompletionResponse
from gateway.schemas.chat import UNUSED, ChatCompletionRequest, asking, refuse_unserved, to_chat_request
from gateway.schemas.lenient import read_body
from gateway.schemas.mode import Mode
from gateway.services import Services

# Beyond this, counting tokens takes so long that others would feel it.
LARGE_BODY_BYTES = 16_384
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
    admitter = services.admitter

    def prepare(body: bytes, mode: Mode) -> Ask:
        asked, left_out = read_body(ChatCompletionRequest, body, mode)
        tier = admitter.tier(asked.model, "chat")
        refuse_unserved(asked)
        request = to_chat_request(asked, tier)
        wish = request.wish
        relay = Relay(
            tier.name,
            asked.model,
            wish.n,
            services.clock,
            services.metrics,
            has_tools=bool(request.tool_use.offered),
            tokenizer=None if wish.logprobs is None else admitter.tokenizer(tier),
            prefix=request.prefix,
        )

        def admit(principal: Principal, claim: Claim | None) -> Admission:
            return admitter.chat(principal, request, claim)

        async def answer(exchanged: Exchanged) -> None:
            await relay.chat(exchanged, stream=wish.stream)

        large = request.is_constrained or len(body) > LARGE_BODY_BYTES
        return Ask(admit, answer, (*left_out, *asking(asked, UNUSED)), large, tier.name)

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
