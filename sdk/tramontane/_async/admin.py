"""The admin API. Needs a key with the scope admin:read or admin:write; what is the operator's, one with operator."""

from __future__ import annotations

from tramontane._async.admin_accounts import (
    AsyncInvites,
    AsyncKeys,
    AsyncMembers,
    AsyncOrganisations,
    AsyncWorkspaces,
)
from tramontane._async.admin_money import AsyncCreditDesk, AsyncCustomerDesk, AsyncLimitsDesk, AsyncPlans, AsyncPrices
from tramontane._async.admin_records import AsyncRecords
from tramontane._async.transport import AsyncTransport
from tramontane.wire.admin import Desk


class AsyncAdmin:
    """Of the key's own organisation; `within` names another one, for an operator's key."""

    def __init__(self, transport: AsyncTransport, desk: Desk = Desk()) -> None:  # noqa: B008 - frozen
        self._transport = transport
        self.organisations = AsyncOrganisations(transport, desk)
        self.workspaces = AsyncWorkspaces(transport, desk)
        self.keys = AsyncKeys(transport, desk)
        self.users = AsyncMembers(transport, desk)
        self.invites = AsyncInvites(transport, desk)
        self.limits = AsyncLimitsDesk(transport, desk)
        self.plans = AsyncPlans(transport, desk)
        self.credit = AsyncCreditDesk(transport, desk)
        self.prices = AsyncPrices(transport, desk)
        self.customer = AsyncCustomerDesk(transport, desk)
        self.records = AsyncRecords(transport, desk)

    def within(self, organisation: str) -> AsyncAdmin:
        """The same for an organisation, by name or id."""
        return AsyncAdmin(self._transport, Desk(organisation))
