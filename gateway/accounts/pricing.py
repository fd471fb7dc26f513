"""A list of prices put into force: written by billing, told to the audit log and to the organisations concerned."""

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy.orm import Session

from billing.money import show_price
from billing.price_lists import PriceChange, PriceEntry, PriceFile, apply_prices
from billing.prices import PriceScope
from core.clock import Clock
from core.errors import NOT_FOUND, PlatformError
from gateway.accounts.generations import Generation, all_generations, raise_generation, raise_generations_of_plan
from gateway.accounts.models import Organisation, Plan
from gateway.accounts.trail import Actor, Target, record


def change_prices(
    session: Session, wanted: PriceFile, *, tiers: Collection[str], actor: Actor, clock: Clock
) -> tuple[tuple[PriceChange, ...], tuple[Generation, ...]]:
    """What got a new version, and what to publish after the commit. Raises PlatformError as `apply_prices` does, and
    NOT_FOUND for a plan or an organisation that nobody knows.
    """
    now_ms = clock.now_ms()
    for entry in wanted.entries:
        _check_known(session, entry.scope)
    changes = apply_prices(
        session,
        wanted.entries,
        name=wanted.name,
        now_ms=now_ms,
        tiers=tiers,
        start_ms=wanted.start_ms,
        note=wanted.note,
    )
    raised = _raise(session, {change.after.scope for change in changes})
    for change in changes:
        scope = change.after.scope
        record(
            session,
            actor,
            "price.apply",
            Target("price", scope.tier),
            organisation=scope.organisation,
            now_ms=now_ms,
            before=None if change.before is None else entry_facts(change.before),
            after={**entry_facts(change.after), "name": wanted.name, "start_ms": wanted.start_ms},
        )
    return changes, raised


def entry_facts(entry: PriceEntry) -> dict[str, Any]:
    """Currency units per million tokens."""
    return {
        "tier": entry.scope.tier,
        "plan": entry.scope.plan,
        "organisation": entry.scope.organisation,
        "input": show_price(entry.input_nano),
        "cached": show_price(entry.cached_nano),
        "output": show_price(entry.output_nano),
        "batch_percent": entry.batch_percent,
    }


def _check_known(session: Session, scope: PriceScope) -> None:
    if scope.plan and session.get(Plan, scope.plan) is None:
        raise PlatformError(NOT_FOUND, f"There is no plan {scope.plan!r}.", param="plan")
    if scope.organisation and session.get(Organisation, scope.organisation) is None:
        raise PlatformError(NOT_FOUND, f"There is no organisation {scope.organisation!r}.", param="organisation")


def _raise(session: Session, changed: Iterable[PriceScope]) -> tuple[Generation, ...]:
    """Of every organisation concerned, each once, so that gateways load its prices anew."""
    scopes = set(changed)
    if any(not scope.plan and not scope.organisation for scope in scopes):
        known = sorted(each.organisation for each in all_generations(session))
        return tuple(raise_generation(session, organisation) for organisation in known)
    raised = {
        each.organisation: each
        for plan in sorted({scope.plan for scope in scopes if scope.plan})
        for each in raise_generations_of_plan(session, plan)
    }
    for organisation in sorted({scope.organisation for scope in scopes if scope.organisation} - raised.keys()):
        raised[organisation] = raise_generation(session, organisation)
    return tuple(raised.values())
