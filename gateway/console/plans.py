"""Plans, for operators: weight, first credit, limits; where they differ from the file."""

from dataclasses import asdict, replace
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from pydantic import Field
from sqlalchemy.orm import Session
from starlette.responses import Response

from billing.money import parse_amount, show_amount
from core.errors import CONFLICT, NOT_FOUND, PlatformError
from core.queue.rules import RuleKind
from gateway.accounts.directory import organisations_by_plan
from gateway.accounts.limits import LimitTerms, Subject, SubjectKind, list_limits, remove_limit, set_limit
from gateway.accounts.models import NAME_LENGTH_MAX
from gateway.accounts.plans import (
    WEIGHT_MAX,
    PlanTerms,
    apply_plans,
    catalog_plans,
    find_plan,
    list_plans,
    plans_that_differ,
    put_plan,
)
from gateway.console.changes import differences
from gateway.console.desk import HOME, Changed, Console
from gateway.console.entrance import Fields
from gateway.console.limit_forms import TITLES, VALUE_CHARS_MAX, limit_value
from gateway.console.listing import answer_table
from gateway.console.table import Asked, Column, Row, make_table
from gateway.console.visitor import Visitor
from gateway.refusals import SPENDING
from gateway.services import Services

PATH = f"{HOME}/operator/plans"
AMOUNT_CHARS_MAX = 20
COLUMNS = (
    Column("name", "Plan", "cell", lambda row: row["name"]),
    Column("organisations", "Organisations", "number"),
    Column("weight", "Weight in the queue", "number"),
    Column("credit_nano", "First credit", "money"),
    Column("limits", "Limits", "cell", lambda row: " ".join(line["text"] for line in row["limits"]), sortable=False),
)
LIMIT_COLUMNS = (
    Column("title", "Limit"),
    Column("tier", "Tier", value=lambda row: row["tier"] or "all together"),
    Column("value", "At most", "cell"),
    Column("hard", "When reached", value=lambda row: "refuses" if row["hard"] else "only tells"),
    Column("actions", "", "cell", lambda _: "", sortable=False),
)

Named = Annotated[str, Query(max_length=NAME_LENGTH_MAX)]


class PlanForm(Fields):
    """`like`: the plan whose limits a new one begins with."""

    name: str = Field(max_length=NAME_LENGTH_MAX)
    credit: str = Field(default="0", max_length=AMOUNT_CHARS_MAX)
    weight: int = Field(ge=1, le=WEIGHT_MAX)
    like: str = Field(default="", max_length=NAME_LENGTH_MAX)

    @property
    def credit_nano(self) -> int:
        return parse_amount(self.credit, param="credit")


class PlanLimitForm(Fields):
    plan: str = Field(max_length=NAME_LENGTH_MAX)
    kind: RuleKind
    tier: str = Field(default="", max_length=64)
    value: str = Field(max_length=VALUE_CHARS_MAX)
    soft: bool = False


class OfPlanForm(Fields):
    plan: str = Field(max_length=NAME_LENGTH_MAX)


def plans_router(console: Console) -> APIRouter:
    router, services = console.router(), console.services
    _add_terms(router, console)
    _add_limits(router, console)

    @router.get("/operator/plans")
    async def show(request: Request, asked: Asked) -> Response:
        visitor = await console.operator(request)

        def run(session: Session) -> tuple[list[Row], list[str]]:
            plans, counts = list_plans(session), organisations_by_plan(session)
            differing = {change.after.name for change in plans_that_differ(session, catalog_plans(services.catalog))}
            rows = [_row(plan, counts.get(plan.name, 0), plan.name in differing) for plan in plans]
            return rows, [plan.name for plan in plans]

        rows, names = await console.read(run)
        table = make_table("plans", PATH, COLUMNS, rows, asked)
        context = {"names": names, "money_unit": services.catalog.currency}
        return await answer_table(console, request, "pages/plans.html", table, visitor=visitor, context=context)

    @router.get("/operator/plans/terms")
    async def show_one(request: Request, asked: Asked, plan: Named) -> Response:
        visitor = await console.operator(request)
        context, rows = await console.read(lambda session: _one(session, services, plan))
        table = make_table("limits", f"{PATH}/terms", LIMIT_COLUMNS, rows, asked, {"plan": plan})
        return await answer_table(console, request, "pages/plan.html", table, visitor=visitor, context=context)

    return router


def _add_terms(router: APIRouter, console: Console) -> None:
    services = console.services

    @router.post("/operator/plans")
    async def create(request: Request) -> Response:
        visitor = await console.operator(request)
        asked = await console.form(request, visitor, PlanForm)

        def run(session: Session) -> Changed[None]:
            kept = {plan.name: plan for plan in list_plans(session)}
            if asked.name in kept:
                raise PlatformError(CONFLICT, f"There is a plan {asked.name!r} already.", param="name")
            limits = find_plan(session, asked.like).limits if asked.like else ()
            return _put(session, services, visitor, PlanTerms(asked.name, asked.credit_nano, asked.weight, limits))

        await console.change(run)
        return console.done(request, plan_path(asked.name), f"The plan {asked.name} is there.")

    @router.post("/operator/plans/terms")
    async def change(request: Request) -> Response:
        visitor = await console.operator(request)
        asked = await console.form(request, visitor, PlanForm)

        def run(session: Session) -> Changed[None]:
            kept = find_plan(session, asked.name)
            terms = replace(kept, credit_nano=asked.credit_nano, weight=asked.weight)
            return _put(session, services, visitor, terms)

        await console.change(run)
        return console.done(request, plan_path(asked.name), "Saved. It counts at once.")

    @router.post("/operator/plans/file")
    async def take_from_file(request: Request) -> Response:
        visitor = await console.operator(request)
        asked = await console.form(request, visitor, OfPlanForm)
        wanted = [plan for plan in catalog_plans(services.catalog) if plan.name == asked.plan]
        if not wanted:
            raise PlatformError(NOT_FOUND, f"The file has no plan {asked.plan!r}.")

        def run(session: Session) -> Changed[None]:
            _, raised = apply_plans(
                session,
                wanted,
                known_tiers=_tiers(services),
                actor=visitor.actor,
                clock=services.clock,
                ids=services.ids,
            )
            return None, raised

        await console.change(run)
        return console.done(request, plan_path(asked.plan), f"{asked.plan} is as in the file now.")


def _add_limits(router: APIRouter, console: Console) -> None:
    services = console.services

    @router.post("/operator/plans/limits")
    async def put_limit(request: Request) -> Response:
        visitor = await console.operator(request)
        asked = await console.form(request, visitor, PlanLimitForm)
        terms = LimitTerms(asked.kind, limit_value(asked.kind, asked.value), asked.tier, hard=not asked.soft)

        def run(session: Session) -> Changed[None]:
            done = set_limit(
                session,
                Subject(SubjectKind.PLAN, asked.plan),
                terms,
                within=None,
                known_tiers=_tiers(services),
                actor=visitor.actor,
                clock=services.clock,
                ids=services.ids,
            )
            return None, done.publish

        await console.change(run)
        return console.done(request, plan_path(asked.plan), "The limit is set. It holds for every organisation on it.")

    @router.post("/operator/plans/limits/{limit_id}/remove")
    async def end_limit(request: Request, limit_id: str) -> Response:
        visitor = await console.operator(request)
        asked = await console.form(request, visitor, OfPlanForm)

        def run(session: Session) -> Changed[None]:
            known = list_limits(session, Subject(SubjectKind.PLAN, asked.plan), within=None)
            if limit_id not in {limit.id for limit in known}:
                raise PlatformError(NOT_FOUND, "The plan has no such limit.")
            done = remove_limit(session, limit_id, within=None, actor=visitor.actor, clock=services.clock)
            return None, done.publish

        await console.change(run)
        return console.done(request, plan_path(asked.plan), "The limit is removed.")


def plan_path(name: str) -> str:
    """A name may have any character: it stands in the query."""
    return f"{PATH}/terms?{urlencode({'plan': name})}"


def _tiers(services: Services) -> list[str]:
    return [tier.name for tier in services.catalog.tiers]


def _put(session: Session, services: Services, visitor: Visitor, terms: PlanTerms) -> Changed[None]:
    done = put_plan(
        session,
        terms,
        known_tiers=_tiers(services),
        actor=visitor.actor,
        clock=services.clock,
        ids=services.ids,
    )
    return None, done.publish


def _row(plan: PlanTerms, organisations: int, differs: bool) -> Row:
    return {
        "name": plan.name,
        "organisations": organisations,
        "weight": plan.weight,
        "credit_nano": plan.credit_nano,
        "limits": [_line(limit) for limit in plan.limits],
        "differs": differs,
        "path": plan_path(plan.name),
    }


def _line(limit: LimitTerms) -> dict[str, Any]:
    return {
        "text": TITLES[limit.kind],
        "value": limit.value,
        "spending": limit.kind in SPENDING,
        "tier": limit.tier,
        "hard": limit.hard,
    }


def _one(session: Session, services: Services, name: str) -> tuple[dict[str, Any], list[Row]]:
    plan = find_plan(session, name)
    limits = list_limits(session, Subject(SubjectKind.PLAN, name), within=None)
    rows: list[Row] = [
        {
            "id": limit.id,
            "kind": limit.kind,
            "title": TITLES[RuleKind(limit.kind)],
            "tier": limit.tier,
            "value": limit.value,
            "spending": RuleKind(limit.kind) in SPENDING,
            "hard": limit.hard,
        }
        for limit in limits
    ]
    wanted = [each for each in catalog_plans(services.catalog) if each.name == name]
    changes = plans_that_differ(session, wanted)
    context = {
        "plan": plan,
        "credit_text": show_amount(plan.credit_nano),
        "organisations": organisations_by_plan(session).get(name, 0),
        "in_file": bool(wanted),
        "file_changes": differences(asdict(plan), asdict(changes[0].after), "UTC") if changes else [],
        "titles": {kind.value: title for kind, title in TITLES.items()},
        "tiers": [(tier, tier, "") for tier in _tiers(services)],
        "money_unit": services.catalog.currency,
        "weight_max": WEIGHT_MAX,
    }
    return context, rows
