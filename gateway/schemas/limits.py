"""The body of GET /v1/limits."""

from typing import Literal

from pydantic import BaseModel, Field

from core.queue.rules import RuleKind


class LimitState(BaseModel):
    """One rule and how it stands. Spending is in nano-units of the installation's currency."""

    rule: RuleKind
    scope: Literal["organisation", "workspace", "key"]
    scope_id: str
    tier: str | None = Field(description="The model it bounds; null: all together.")
    value: int
    hard: bool = Field(description="false: nothing is refused, it only tells.")
    used: int
    remaining: int = Field(description="Of a soft limit, or of tokens per minute, it may be below zero.")
    reset_s: int = Field(description="Until all of it is free again, unless more is used; of a calendar rule, its end.")
    reset_at: int = Field(description="The same as seconds since 1970.")
    window: str | None = Field(description="Of a calendar rule: such as 2026-11 or 2026-11-22, in its own time zone.")


class LimitList(BaseModel):
    object: Literal["list"] = "list"
    data: list[LimitState]
