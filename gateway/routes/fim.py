"""POST /v1/fim/completions: fill in the middle, answered like a chat."""

from core.queue.base import Admission, Claim
from gateway.principal import Principal
from gateway.routes.chat import ANSWERS, LARGE_BODY_BYTES
from gateway.routes.metered import Ask, Exchanged, MeteredRoute
from gateway.routes.relay import Relay
from gateway.schemas.chat import UNUSED, asking
from gateway.schemas.fim import FIMCompletionRequest, to_fim_request
from gateway.schemas.lenient import read_body
from gateway.schemas.mode import Mode
from gateway.services import Services


def fim_route(services: Services) -> MeteredRoute:
    def prepare(body: bytes, mode: Mode) -> Ask:
        asked, left_out = read_body(FIMCompletionRequest, body, mode)
        tier = services.admitter.tier(asked.model, "chat")
        request = to_fim_request(asked, tier)
        relay = Relay(tier.name, asked.model, request.wish.n, services.clock, services.metrics)

        def admit(principal: Principal, claim: Claim | None) -> Admission:
            return services.admitter.fim(principal, request, claim)

        async def answer(exchanged: Exchanged) -> None:
            await relay.chat(exchanged, stream=asked.stream)

        return Ask(admit, answer, (*left_out, *asking(asked, UNUSED)), len(body) > LARGE_BODY_BYTES, tier.name)

    return MeteredRoute(
        "/v1/fim/completions",
        services,
        prepare,
        body=FIMCompletionRequest,
        answers=ANSWERS,
        operation_id="fim_completion",
        summary="Fill in the middle",
        description="For tiers whose tokenizer has tokens for it; others answer 400. Unknown fields are refused.",
    )
