"""POST /v1/embeddings."""

from core.queue.base import Admission, Claim
from gateway.principal import Principal
from gateway.replies import Folded
from gateway.responses import embeddings_body
from gateway.routes.metered import Ask, Exchanged, MeteredRoute
from gateway.routes.relay import Relay
from gateway.schemas.answers import EmbeddingResponse
from gateway.schemas.chat import UNUSED, asking
from gateway.schemas.embeddings import EmbeddingRequest, refuse_unserved
from gateway.schemas.lenient import read_body
from gateway.schemas.mode import Mode
from gateway.services import Services

# Beyond this, counting tokens takes so long that others would feel it.
LARGE_BODY_BYTES = 4_096


def embeddings_route(services: Services) -> MeteredRoute:
    def prepare(body: bytes, mode: Mode) -> Ask:
        asked, left_out = read_body(EmbeddingRequest, body, mode)
        tier = services.admitter.tier(asked.model, "embed")
        refuse_unserved(asked, tier)
        relay = Relay(tier.name, asked.model, 0, services.clock, services.metrics)

        def admit(principal: Principal, claim: Claim | None) -> Admission:
            return services.admitter.embed(principal, tier, asked.texts, claim)

        async def answer(exchanged: Exchanged) -> None:
            def body_of(folded: Folded) -> bytes:
                return embeddings_body(
                    request_id=exchanged.conversation.request_id,
                    model=asked.model,
                    vectors=folded.vectors,
                    encoding_format=asked.encoding_format,
                    usage=folded.usage,
                )

            await relay.fold(exchanged, body_of)

        return Ask(admit, answer, (*left_out, *asking(asked, UNUSED)), len(body) > LARGE_BODY_BYTES, tier.name)

    return MeteredRoute(
        "/v1/embeddings",
        services,
        prepare,
        body=EmbeddingRequest,
        answers={"model": EmbeddingResponse, "description": "One vector for each text, in order."},
        operation_id="embeddings",
        summary="Turn texts into vectors",
        description="A text longer than the tier's window is refused, never cut.",
    )
