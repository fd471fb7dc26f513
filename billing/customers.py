"""Who is billed: the customer behind an organisation. Billing knows organisations only by their id."""

from dataclasses import dataclass

from sqlalchemy import String
from sqlalchemy.orm import Mapped, Session, mapped_column

from billing.calendar import DEFAULT_ZONE, check_time_zone
from core.db import Base, insert_new
from core.errors import NOT_FOUND, VALIDATION, PlatformError

NAME_LENGTH_MAX = 128
ADDRESS_LENGTH_MAX = 1_000
EMAIL_LENGTH_MAX = 254
ZONE_LENGTH_MAX = 64


class Customer(Base):
    """`time_zone` cuts calendar windows, roll-ups and invoice periods. The credit limit lies in the credit account."""

    __tablename__ = "customers"

    organisation: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX))
    address: Mapped[str] = mapped_column(String(ADDRESS_LENGTH_MAX))
    email: Mapped[str] = mapped_column(String(EMAIL_LENGTH_MAX))
    currency: Mapped[str] = mapped_column(String(3))
    time_zone: Mapped[str] = mapped_column(String(ZONE_LENGTH_MAX))
    created_ms: Mapped[int]


@dataclass(frozen=True, slots=True)
class CustomerChange:
    """None leaves a field as it is."""

    name: str | None = None
    address: str | None = None
    email: str | None = None
    time_zone: str | None = None


def ensure_customer(
    session: Session, organisation: str, *, name: str, currency: str, now_ms: int, time_zone: str = DEFAULT_ZONE
) -> Customer:
    """The organisation's customer, made with these values if there is none yet. Raises PlatformError (VALIDATION)."""
    row = {
        "organisation": organisation,
        "name": _text("name", name, NAME_LENGTH_MAX),
        "address": "",
        "email": "",
        "currency": currency,
        "time_zone": check_time_zone(time_zone),
        "created_ms": now_ms,
    }
    insert_new(session, Customer, [row], ["organisation"])
    return customer_of(session, organisation)


def customer_of(session: Session, organisation: str) -> Customer:
    """Raises PlatformError (NOT_FOUND)."""
    found = session.get(Customer, organisation)
    if found is None:
        raise PlatformError(NOT_FOUND, f"No customer is kept for the organisation {organisation}.")
    return found


def time_zone_of(session: Session, organisation: str) -> str:
    """UTC for an organisation that billing does not know yet."""
    found = session.get(Customer, organisation)
    return DEFAULT_ZONE if found is None else found.time_zone


def update_customer(session: Session, organisation: str, change: CustomerChange) -> Customer:
    """Raises PlatformError (NOT_FOUND, VALIDATION). The caller raises the organisation's generation: its windows lie
    in the principals that gateways cache.
    """
    customer = customer_of(session, organisation)
    if change.name is not None:
        customer.name = _text("name", change.name, NAME_LENGTH_MAX)
    if change.address is not None:
        customer.address = _text("address", change.address, ADDRESS_LENGTH_MAX, lines=True)
    if change.email is not None:
        customer.email = _text("email", change.email, EMAIL_LENGTH_MAX)
    if change.time_zone is not None:
        customer.time_zone = check_time_zone(change.time_zone)
    session.flush()
    return customer


def _text(field: str, value: str, length_max: int, *, lines: bool = False) -> str:
    text = value.strip()
    printable = text.replace("\n", "") if lines else text
    if len(text) > length_max or (text and not printable.isprintable()) or (field == "name" and not text):
        raise PlatformError(VALIDATION, f"{field} has at most {length_max} printable characters.", param=field)
    return text
