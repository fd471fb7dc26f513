"""From a refusal of admission to what the caller is told."""

from core.errors import (
    CAPACITY,
    CREDIT_RESERVED,
    PAYMENT_REQUIRED,
    RATE_LIMITED,
    SPENDING_LIMIT,
    UNAVAILABLE,
    ErrorKind,
    PlatformError,
    Refusal,
)
from core.queue.base import Refused, RefusedBy
from core.queue.rules import RuleKind

SPENDING = frozenset({RuleKind.SPEND_PER_DAY, RuleKind.SPEND_PER_MONTH})


def refusal_error(refused: Refused, balance_nano: int | None = None) -> PlatformError:
    """429 for what time cures, 402 for money, 503 for our own trouble; each names the rule that refused. `balance_nano`
    is what billing knows to be left, open reservations included.

    STALE comes here only when a freshly loaded principal was stale again.
    """
    refusal = refused.refusal
    after_s = None if refusal.retry_after_ms is None else max(1, -(-refusal.retry_after_ms // 1_000))
    figures = _figures(refusal)
    match refused.by:
        case RefusedBy.RULE:
            if refusal.rule in SPENDING:
                return _error(refusal, SPENDING_LIMIT, f"Spending limit reached. {figures}; it can be raised.", None)
            return _error(refusal, RATE_LIMITED, f"Rate limit exceeded. {figures}{_again(after_s)}.", after_s)
        case RefusedBy.CREDIT:
            return _credit(refused, balance_nano, after_s)
        case RefusedBy.QUEUE_FULL | RefusedBy.QUEUE_SLOW:
            message = f"Service tier capacity exceeded for this model. {figures}{_again(after_s)}."
            return _error(refusal, CAPACITY, message, after_s)
        case RefusedBy.BACKLOG:
            message, after_s = f"Usage cannot be recorded now. {figures}{_again(after_s)}.", after_s or 1
        case RefusedBy.STALE:
            message, after_s = "The key's settings are being changed; try again.", 1
        case RefusedBy.EPOCH:
            message, after_s = "Redis was started anew and credit is being brought to it; try again.", 1
        case RefusedBy.UNSEEDED:
            message, after_s = f"What was used under {refusal.rule} is being counted; try again.", 1
    return _error(refusal, UNAVAILABLE, message, after_s)


def _credit(refused: Refused, balance_nano: int | None, after_s: int | None) -> PlatformError:
    needed_nano, free_nano = refused.refusal.limit, refused.refusal.remaining
    balance = free_nano + refused.reserved_nano if balance_nano is None else balance_nano
    figures = (
        f"this request needs {needed_nano} nano-units, the balance is {balance}, "
        f"of which open requests reserve {refused.reserved_nano}"
    )
    if balance_nano is not None and balance_nano >= needed_nano:
        after_s = after_s or 1
        message = f"Open requests hold the credit: {figures}{_again(after_s)}."
        return _error(refused.refusal, CREDIT_RESERVED, message, after_s)
    return _error(refused.refusal, PAYMENT_REQUIRED, f"Credit used up: {figures}.", None)


def _figures(refusal: Refusal) -> str:
    where = f"{refusal.scope}, {refusal.tier}" if refusal.tier else refusal.scope
    return f"{refusal.rule} ({where}): limit {refusal.limit}, remaining {refusal.remaining}"


def _again(after_s: int | None) -> str:
    return "" if after_s is None else f"; try again in {after_s} s"


def _error(refusal: Refusal, kind: ErrorKind, message: str, after_s: int | None) -> PlatformError:
    return PlatformError(kind, message, retry_after_s=after_s, refusal=refusal)
