"""Limits, plans, credit, prices, and who is billed. Amounts are decimal strings in the platform's currency."""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, Sequence, Union

from tramontane._async.transport import AsyncTransport
from tramontane.money_types import (
    Credit,
    Customer,
    Grant,
    Limit,
    Plan,
    Price,
    PriceChange,
    PriceChanges,
    RateLimits,
    SpendLimit,
)
from tramontane.wire.admin import Desk, place
from tramontane.wire.calls import given


class AsyncLimitsDesk:
    def __init__(self, transport: AsyncTransport, desk: Desk) -> None:
        self._transport = transport
        self._desk = desk

    async def list(self, *, subject_kind: Optional[str] = None, subject_id: Optional[str] = None) -> List[Limit]:
        """Those set for exactly this subject: customer (if none is given), workspace, key, organisation, plan."""
        return await self._transport.run(
            self._desk.listed("/limits", Limit, subject_kind=subject_kind, subject_id=subject_id)
        )

    async def set(
        self,
        kind: str,
        *,
        subject_kind: str,
        subject_id: Optional[str] = None,
        value: Optional[int] = None,
        amount: Optional[str] = None,
        tier: Optional[str] = None,
        hard: Optional[bool] = None,
    ) -> Limit:
        """`kind`: requests_per_minute, tokens_per_minute, concurrency, spend_per_month, ... Spending takes `amount`."""
        body = given(
            kind=kind,
            subject_kind=subject_kind,
            subject_id=subject_id,
            value=value,
            amount=amount,
            tier=tier,
            hard=hard,
        )
        return await self._transport.run(self._desk.put("/limits", Limit, body))

    async def remove(self, limit_id: str) -> None:
        await self._transport.run(self._desk.delete(place("/limits/*", limit_id)))

    async def rate_limit(self) -> RateLimits:
        """What bounds the organisation."""
        return await self._transport.run(self._desk.get("/rate-limit", RateLimits))

    async def spend_limit(self) -> SpendLimit:
        """Of the current month."""
        return await self._transport.run(self._desk.get("/spend-limit", SpendLimit))

    async def set_spend_limit(self, amount: Union[int, str, None]) -> SpendLimit:
        """What the organisation allows itself in a calendar month; None takes the limit away."""
        body = {"no_monthly_limit": True} if amount is None else {"amount": amount}
        return await self._transport.run(self._desk.post("/spend-limit", SpendLimit, body))


class AsyncPlans:
    """The operator's."""

    def __init__(self, transport: AsyncTransport, desk: Desk) -> None:
        self._transport = transport
        self._desk = desk

    async def list(self, *, limit: Optional[int] = None, offset: Optional[int] = None) -> List[Plan]:
        return await self._transport.run(self._desk.listed("/plans", Plan, limit=limit, offset=offset))

    async def put(
        self,
        name: str,
        *,
        credit: str,
        weight: Optional[int] = None,
        limits: Optional[Sequence[Mapping[str, Any]]] = None,
    ) -> Plan:
        """All of a plan: it is made, or gets these and no others. A limit has kind, value or amount, tier, hard."""
        body = given(name=name, credit=credit, weight=weight, limits=limits)
        return await self._transport.run(self._desk.put("/plans", Plan, body))


class AsyncCreditDesk:
    def __init__(self, transport: AsyncTransport, desk: Desk) -> None:
        self._transport = transport
        self._desk = desk

    async def retrieve(self) -> Credit:
        return await self._transport.run(self._desk.get("/credit", Credit))

    async def top_up(self, amount: str, *, note: Optional[str] = None, idempotency_key: Optional[str] = None) -> Grant:
        """Credit that was paid; the operator's. The same key again is the same grant."""
        body = given(amount=amount, note=note)
        return await self._transport.run(self._desk.create_once("/credit/top-ups", Grant, body, idempotency_key))

    async def grant(
        self,
        amount: str,
        *,
        expires_at: Optional[str] = None,
        priority: Optional[int] = None,
        note: Optional[str] = None,
        idempotency_key: Optional[str] = None,
    ) -> Grant:
        """Credit that is given; the operator's. The same key again is the same grant."""
        body = given(amount=amount, expires_at=expires_at, priority=priority, note=note)
        return await self._transport.run(self._desk.create_once("/credit/grants", Grant, body, idempotency_key))

    async def set_limit(self, amount: str) -> Credit:
        """How far the balance may go below zero; the operator's."""
        return await self._transport.run(self._desk.patch("/credit/limit", Credit, {"amount": amount}))


class AsyncPrices:
    """The operator's."""

    def __init__(self, transport: AsyncTransport, desk: Desk) -> None:
        self._transport = transport
        self._desk = desk

    async def list(
        self, *, tier: Optional[str] = None, limit: Optional[int] = None, offset: Optional[int] = None
    ) -> List[Price]:
        """All versions, past and coming ones too."""
        return await self._transport.run(self._desk.listed("/prices", Price, tier=tier, limit=limit, offset=offset))

    async def create(
        self,
        version: str,
        prices: Sequence[Mapping[str, Any]],
        *,
        start: Optional[str] = None,
        note: Optional[str] = None,
    ) -> List[PriceChange]:
        """What differs from the prices in force at `start` becomes a new version. A price has tier, input, output,
        cached, batch_percent, plan, organisation.
        """
        body = given(version=version, prices=list(prices), start=start, note=note)
        return (await self._transport.run(self._desk.create("/prices", PriceChanges, body))).changes


class AsyncCustomerDesk:
    """Who is billed."""

    def __init__(self, transport: AsyncTransport, desk: Desk) -> None:
        self._transport = transport
        self._desk = desk

    async def retrieve(self) -> Customer:
        return await self._transport.run(self._desk.get("/customer", Customer))

    async def update(
        self,
        *,
        name: Optional[str] = None,
        address: Optional[str] = None,
        email: Optional[str] = None,
        time_zone: Optional[str] = None,
    ) -> Customer:
        """What is not given stays as it is."""
        body = given(name=name, address=address, email=email, time_zone=time_zone)
        return await self._transport.run(self._desk.patch("/customer", Customer, body))
