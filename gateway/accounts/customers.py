"""Who is billed, changed by people: with its entry in the audit log."""

from dataclasses import fields

from sqlalchemy.orm import Session

from billing.customers import Customer, CustomerChange, customer_of, update_customer
from core.clock import Clock
from gateway.accounts.generations import Change, raise_generation
from gateway.accounts.trail import Actor, Target, record


def change_customer(
    session: Session, organisation: str, change: CustomerChange, *, actor: Actor, clock: Clock
) -> Change:
    """The time zone cuts windows that gateways keep: the generation is raised. What is so already changes nothing.
    Raises PlatformError: NOT_FOUND, VALIDATION.
    """
    before = _facts(customer_of(session, organisation))
    after = _facts(update_customer(session, organisation, change))
    changed = [name for name in after if after[name] != before[name]]
    if not changed:
        return Change(organisation, ())
    record(
        session,
        actor,
        "customer.change",
        Target("customer", organisation),
        organisation=organisation,
        now_ms=clock.now_ms(),
        before={name: before[name] for name in changed},
        after={name: after[name] for name in changed},
    )
    return Change(organisation, (raise_generation(session, organisation),))


def _facts(customer: Customer) -> dict[str, str]:
    return {field.name: getattr(customer, field.name) for field in fields(CustomerChange)}
