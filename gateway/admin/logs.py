"""/v1/admin/audit-logs and /v1/admin/refusals: who did what, and why something was refused."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from sqlalchemy.orm import Session

from core.errors import NOT_ALLOWED, UNAVAILABLE, PlatformError
from core.meter.refusals import KEPT_MS
from gateway.accounts.trail import list_audit
from gateway.admin.desk import ERRORS, Acting, AdminDesk
from gateway.desk import QUEUE_AWAY
from gateway.schemas.admin.fields import PAGE_DEFAULT, Limit, Page
from gateway.schemas.admin.logs import AuditPage, RefusalShown, shown_audit, shown_refusal
from gateway.services import Services

MS_PER_S = 1_000
KEPT_S = KEPT_MS // MS_PER_S


def logs_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/admin", tags=["admin: logs"], responses=ERRORS)
    desk = AdminDesk(services)

    @router.get("/audit-logs", operation_id="admin_list_audit_logs")
    async def list_acts(
        acting: Annotated[Acting, Depends(desk.enter)],
        limit: Limit = PAGE_DEFAULT,
        before_id: Annotated[int | None, Query(ge=1, le=2**53, description="`next_before_id` of a page.")] = None,
    ) -> AuditPage:
        """Every administrative act, youngest first; nothing is ever taken out."""

        def run(session: Session) -> AuditPage:
            within = acting.within(session)
            found = list_audit(session, within=within, before_id=before_id, count=limit)
            following = found[-1].id if len(found) == limit else None
            return AuditPage(data=[shown_audit(entry) for entry in found], next_before_id=following)

        return await desk.read(run)

    @router.get("/refusals", operation_id="admin_list_refusals")
    async def list_refusals(
        acting: Annotated[Acting, Depends(desk.enter)],
        limit: Limit = PAGE_DEFAULT,
        since_s: Annotated[int, Query(ge=1, le=KEPT_S, description="So far back.")] = KEPT_S,
        unattributed: Annotated[bool, Query(description="Those without a valid key; only for an operator.")] = False,
    ) -> Page[RefusalShown]:
        """Requests for inference that were refused in the last day, youngest first, at most 5 000 of an organisation;
        above 100 in a second they are counted instead.
        """
        if unattributed and not acting.is_operator:
            raise PlatformError(NOT_ALLOWED, "This is for operators.", param="unattributed")
        home = "" if unattributed else await desk.read(acting.organisation)
        since_ms = services.clock.now_ms() - since_s * MS_PER_S
        try:
            found = await services.refusals.read(home, since_ms, limit)
        except QUEUE_AWAY as error:
            raise PlatformError(UNAVAILABLE, "Redis does not answer at the moment.", retry_after_s=1) from error
        return Page(data=[shown_refusal(event) for event in found])

    return router
