"""What billing needs before an organisation can spend: a customer, and its plan's first credit."""

from sqlalchemy.orm import Session

from billing.calendar import DEFAULT_ZONE
from billing.customers import ensure_customer
from billing.grants import ensure_plan_credit
from core.clock import Clock
from gateway.accounts.models import Organisation, Plan


def open_account(
    session: Session, organisation_id: str, currency: str, clock: Clock, *, time_zone: str = DEFAULT_ZONE
) -> None:
    """Twice does no harm. A plan's credit is given once, that of the organisation's first plan."""
    organisation = session.get_one(Organisation, organisation_id)
    ensure_customer(
        session,
        organisation_id,
        name=organisation.name,
        currency=currency,
        now_ms=clock.now_ms(),
        time_zone=time_zone,
    )
    ensure_plan_credit(session, organisation_id, session.get_one(Plan, organisation.plan).credit_nano, clock)
