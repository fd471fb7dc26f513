"""Every table of the platform, for Alembic to compare with."""

from sqlalchemy import MetaData

from billing.accounts import CreditAccount
from billing.briefs import TierHour
from billing.customers import Customer
from billing.days import RevenueDay
from billing.epochs import EpochRow
from billing.experts import ExpertCount
from billing.grants import Grant
from billing.journal import LedgerEntry
from billing.models import UsageRecord
from billing.prices import PriceVersion
from billing.transfers import CreditTransfer
from core.db import Base
from gateway.accounts.console_keys import ConsoleKey
from gateway.accounts.models import ApiKey
from gateway.accounts.people import User
from gateway.console.chat_models import Chat

assert all(
    model.metadata is Base.metadata
    for model in (
        ApiKey,
        Chat,
        ConsoleKey,
        CreditAccount,
        CreditTransfer,
        Customer,
        EpochRow,
        ExpertCount,
        Grant,
        LedgerEntry,
        PriceVersion,
        RevenueDay,
        TierHour,
        UsageRecord,
        User,
    )
), "all rooms declare their tables on one Base"
METADATA: MetaData = Base.metadata
