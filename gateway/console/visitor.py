"""Who looks at the console, and at which organisation."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.calendar import DEFAULT_ZONE
from billing.customers import Customer
from core.errors import NOT_FOUND, PlatformError
from gateway.accounts.access import Access
from gateway.accounts.models import Organisation
from gateway.accounts.roles import Permission
from gateway.accounts.sessions import Origin, SignedIn, csrf_token
from gateway.accounts.trail import Actor

ORGANISATIONS_SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who is logged in. `token` is the session's, for the tokens of forms."""

    signed_in: SignedIn
    origin: Origin
    token: SecretStr = field(repr=False)

    @property
    def access(self) -> Access:
        return self.signed_in.access

    @property
    def actor(self) -> Actor:
        return self.signed_in.actor(self.origin)

    @property
    def csrf(self) -> str:
        return csrf_token(self.token.get_secret_value())


@dataclass(frozen=True, slots=True)
class Other:
    """An organisation to switch to."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Place:
    """An organisation that the visitor belongs to, or any for an operator."""

    visitor: Visitor
    id: str
    name: str
    plan: str
    status: str
    currency: str
    zone: str
    others: Sequence[Other] = ()

    @property
    def path(self) -> str:
        return place_path(self.id)

    def may(self, permission: Permission, workspace: str | None = None) -> bool:
        return self.visitor.access.may(permission, self.id, workspace)

    def somewhere(self, permission: Permission) -> bool:
        """In the organisation as a whole, or in one workspace of it at least."""
        shown = self.visitor.access.workspaces(permission, self.id)
        return shown is None or bool(shown)

    def workspaces(self, permission: Permission) -> frozenset[str] | None:
        """Those in which he may do it; None: all."""
        return self.visitor.access.workspaces(permission, self.id)


def place_path(organisation: str) -> str:
    return f"/console/o/{organisation}"


def place_of(session: Session, visitor: Visitor, organisation_id: str) -> Place:
    """Raises PlatformError (NOT_FOUND), the same for an organisation that is not his and for none."""
    query = select(Organisation, Customer).outerjoin(Customer, Customer.organisation == Organisation.id)
    found = session.execute(query.where(Organisation.id == organisation_id)).one_or_none()
    if found is None or not visitor.access.belongs_to(found[0].id):
        raise PlatformError(NOT_FOUND, "There is no such page, or it is not for you.")
    organisation, customer = found
    return Place(
        visitor=visitor,
        id=organisation.id,
        name=organisation.name,
        plan=organisation.plan,
        status=organisation.status,
        currency="" if customer is None else customer.currency,
        zone=DEFAULT_ZONE if customer is None else customer.time_zone,
        others=organisations_of(session, visitor.access),
    )


def organisations_of(session: Session, access: Access) -> list[Other]:
    """By name; of an operator those he belongs to, and if he belongs to none the first of all."""
    own = [*access.roles, *(role.organisation for role in access.workspace_roles.values())]
    query = select(Organisation.id, Organisation.name).order_by(Organisation.name).limit(ORGANISATIONS_SHOWN_MAX)
    mine = [Other(*row) for row in session.execute(query.where(Organisation.id.in_(own)))] if own else []
    if mine or not access.operator:
        return mine
    return [Other(*row) for row in session.execute(query)]
