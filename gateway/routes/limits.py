"""GET /v1/limits: every rule that applies to the calling key, in the order in which admission checks them."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from core.db import DatabaseUnavailableError
from core.errors import UNAVAILABLE, PlatformError
from core.queue.rules import RuleState
from gateway.desk import QUEUE_AWAY
from gateway.headers import JSON_TYPE
from gateway.limit_states import current_window, rule_states
from gateway.routes.access import authenticate_now
from gateway.schemas.answers import ERROR_RESPONSES
from gateway.schemas.limits import LimitList, LimitState
from gateway.services import Services

MS_PER_S = 1_000


def limits_router(services: Services) -> APIRouter:
    responses: dict[int | str, dict[str, Any]] = {status: ERROR_RESPONSES[status] for status in (401, 403, 503)}
    router = APIRouter(tags=["limits"], responses=responses)

    @router.get("/v1/limits", responses={200: {"model": LimitList}}, operation_id="list_limits")
    async def list_limits(request: Request) -> Response:
        """What bounds this key: its own limits, its workspace's, its organisation's; how much is used, and until
        when. Any valid key may ask.
        """
        caller = await authenticate_now(services.principals, services.keeper, request.scope, None)
        now_ms = services.clock.now_ms()
        try:
            states = await rule_states(
                services.counters, services.database, caller.principal.organisation, caller.principal.rules, now_ms
            )
        except (DatabaseUnavailableError, *QUEUE_AWAY) as error:
            message = "The platform cannot tell at the moment how limits stand."
            raise PlatformError(UNAVAILABLE, message, retry_after_s=1) from error
        body = LimitList(data=[_shown(state, now_ms) for state in states])
        return Response(body.model_dump_json(), media_type=JSON_TYPE.decode("ascii"))

    return router


def _shown(state: RuleState, now_ms: int) -> LimitState:
    rule = state.rule
    window = current_window(rule, now_ms)
    return LimitState.model_validate(
        {
            "rule": rule.kind,
            "scope": rule.scope,
            "scope_id": rule.scope_id,
            "tier": rule.tier or None,
            "value": rule.limit,
            "hard": rule.hard,
            "used": rule.limit - state.remaining,
            "remaining": state.remaining,
            "reset_s": -(-state.reset_ms // MS_PER_S),
            "reset_at": -(-(now_ms + state.reset_ms) // MS_PER_S),
            "window": None if window is None else window.id,
        }
    )
