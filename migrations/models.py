"""Every table of the platform, for Alembic to compare with."""

from sqlalchemy import MetaData

from billing.models import UsageRecord
from core.db import Base
from gateway.accounts.models import ApiKey

assert UsageRecord.metadata is ApiKey.metadata is Base.metadata, "all rooms declare their tables on one Base"
METADATA: MetaData = Base.metadata
