"""Every table of the platform, for Alembic to compare with."""

from sqlalchemy import MetaData

from billing.customers import Customer
from billing.models import UsageRecord
from billing.prices import PriceVersion
from core.db import Base
from gateway.accounts.models import ApiKey

assert all(
    model.metadata is Base.metadata
    for model in (
        ApiKey,
        Customer,
        PriceVersion,
        UsageRecord,
    )
), "all rooms declare their tables on one Base"
METADATA: MetaData = Base.metadata
