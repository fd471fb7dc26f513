"""Organisations and the customers behind them, as /v1/admin shows and takes them."""

from typing import Annotated

from pydantic import BaseModel, Field

from billing.customers import ADDRESS_LENGTH_MAX, EMAIL_LENGTH_MAX, Customer
from gateway.accounts.models import Organisation
from gateway.schemas.admin.fields import Name, iso
from gateway.schemas.parsing import Strict

Zone = Annotated[str, Field(min_length=1, max_length=64, description="An IANA name such as Europe/Rome.")]
NO_CONTROLS = r"^[^\x00-\x1f\x7f]*$"
NO_CONTROLS_BUT_LINES = r"^[^\x00-\x09\x0b-\x1f\x7f]*$"


class OrganisationCreation(Strict):
    name: Name
    plan: Name = Field(default="development")
    lenient: bool = Field(default=False, description="Accept what OpenAI clients send.")
    time_zone: Zone = Field(default="UTC")


class OrganisationUpdate(Strict):
    """What is absent stays as it is."""

    name: Name | None = None
    plan: Name | None = None
    lenient: bool | None = None


class OrganisationShown(BaseModel):
    id: str
    name: str
    plan: str
    status: str = Field(description="active or suspended.")
    lenient: bool
    created_at: str


class CustomerUpdate(Strict):
    """What is absent stays as it is."""

    name: Name | None = None
    address: str | None = Field(default=None, max_length=ADDRESS_LENGTH_MAX, pattern=NO_CONTROLS_BUT_LINES)
    email: str | None = Field(default=None, max_length=EMAIL_LENGTH_MAX, pattern=NO_CONTROLS)
    time_zone: Zone | None = Field(default=None, description="Cuts days and months of limits, usage and invoices.")


class CustomerShown(BaseModel):
    """Who is billed."""

    organisation_id: str
    name: str
    address: str
    email: str
    currency: str
    time_zone: str


def shown(organisation: Organisation) -> OrganisationShown:
    return OrganisationShown(
        id=organisation.id,
        name=organisation.name,
        plan=organisation.plan,
        status=organisation.status,
        lenient=organisation.lenient,
        created_at=iso(organisation.created_ms),
    )


def shown_customer(customer: Customer) -> CustomerShown:
    return CustomerShown(
        organisation_id=customer.organisation,
        name=customer.name,
        address=customer.address,
        email=customer.email,
        currency=customer.currency,
        time_zone=customer.time_zone,
    )
