"""What was used, done and refused."""

from __future__ import annotations

from typing import List, Optional

from tramontane._async.transport import AsyncTransport
from tramontane.admin_types import AuditPage, RefusedRequest
from tramontane.money_types import MonthlyUsage
from tramontane.wire.admin import Desk


class AsyncRecords:
    def __init__(self, transport: AsyncTransport, desk: Desk) -> None:
        self._transport = transport
        self._desk = desk

    async def monthly_usage(
        self, *, year: Optional[int] = None, month: Optional[int] = None, workspace_id: Optional[str] = None
    ) -> MonthlyUsage:
        """A calendar month by model and day; the current one if none is given."""
        call = self._desk.get("/usage", MonthlyUsage, year=year, month=month, workspace_id=workspace_id)
        return await self._transport.run(call)

    async def audit_logs(self, *, limit: Optional[int] = None, before_id: Optional[int] = None) -> AuditPage:
        """Every administrative act, youngest first."""
        call = self._desk.get("/audit-logs", AuditPage, limit=limit, before_id=before_id)
        return await self._transport.run(call)

    async def refusals(
        self,
        *,
        since_s: Optional[int] = None,
        unattributed: Optional[bool] = None,
        limit: Optional[int] = None,
    ) -> List[RefusedRequest]:
        """Requests for inference that were refused in the last day, youngest first."""
        call = self._desk.listed("/refusals", RefusedRequest, since_s=since_s, unattributed=unattributed, limit=limit)
        return await self._transport.run(call)
