"""The admin API. Needs a key with the scope admin:read or admin:write; what is the operator's, one with operator."""

from __future__ import annotations

from tramontane._sync.admin_accounts import (
    Invites,
    Keys,
    Members,
    Organisations,
    Workspaces,
)
from tramontane._sync.admin_money import CreditDesk, CustomerDesk, LimitsDesk, Plans, Prices
from tramontane._sync.admin_records import Records
from tramontane._sync.transport import Transport
from tramontane.wire.admin import Desk


class Admin:
    """Of the key's own organisation; `within` names another one, for an operator's key."""

    def __init__(self, transport: Transport, desk: Desk = Desk()) -> None:  # noqa: B008 - frozen
        self._transport = transport
        self.organisations = Organisations(transport, desk)
        self.workspaces = Workspaces(transport, desk)
        self.keys = Keys(transport, desk)
        self.users = Members(transport, desk)
        self.invites = Invites(transport, desk)
        self.limits = LimitsDesk(transport, desk)
        self.plans = Plans(transport, desk)
        self.credit = CreditDesk(transport, desk)
        self.prices = Prices(transport, desk)
        self.customer = CustomerDesk(transport, desk)
        self.records = Records(transport, desk)

    def within(self, organisation: str) -> Admin:
        """The same for an organisation, by name or id."""
        return Admin(self._transport, Desk(organisation))
