"""GET /v1/admin/usage in Mistral's shape."""

from typing import Literal

from pydantic import BaseModel, Field

PRICE = "Currency units per million tokens, as in force now."
Group = Literal["input", "cached", "output"]


class UsageEntry(BaseModel):
    """Tokens of one model and class in one day. Cached input tokens are not in input."""

    event_type: Literal["api_tokens"] = "api_tokens"
    billing_metric: str = Field(description="The model.")
    billing_group: Group
    timestamp: str = Field(description="The day's begin, in the organisation's time zone.")
    value: int


class ModelUsage(BaseModel):
    input: list[UsageEntry]
    cached: list[UsageEntry]
    output: list[UsageEntry]
    requests: int
    cost: str
    cost_nano: int


class CategoryUsage(BaseModel):
    models: dict[str, ModelUsage]


class UsagePrice(BaseModel):
    event_type: Literal["api_tokens"] = "api_tokens"
    billing_metric: str
    billing_group: Group
    price: str = Field(description=PRICE)
    price_nano: int = Field(description="Nano-units per thousand tokens.")
    version: str


class MonthlyUsage(BaseModel):
    """What was settled of requests admitted in one calendar month of the organisation, to the nano-unit. Complete
    15 minutes after its end.
    """

    start_date: str
    end_date: str
    previous_month: str
    next_month: str
    time_zone: str
    currency: str
    currency_symbol: str
    prices: list[UsagePrice]
    completion: CategoryUsage
    embedding: CategoryUsage
    requests: int
    total: str
    total_nano: int
