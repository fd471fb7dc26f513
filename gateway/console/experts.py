"""How a mixture's router spreads tokens over its experts, for operators: by layer and expert, and over time."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import Response

from billing.calendar import HOUR_MS
from billing.days import DAY_MS, day_start_ms
from billing.experts import LayerCounts, LayerPoint, layer_points, sampled_tiers, sampled_workspaces
from gateway.accounts.models import Organisation, Workspace
from gateway.console.desk import Console
from gateway.console.formats import day, moment
from gateway.console.listing import answer_table
from gateway.console.table import Column, Row, TableAsked, make_table

PATH = "/console/operator/experts"
PERIODS = {"24h": "24 hours", "7d": "7 days", "30d": "30 days"}
DAYS = {"7d": 7, "30d": 30}
WORKSPACES_MAX = 100
LINES_MAX = 5  # of single layers in a chart; the most uneven ones
EVEN_DIGITS = 4

COLUMNS = (
    Column("layer", "Layer", "number"),
    Column("expert", "Expert", "number"),
    Column("tokens", "Tokens", "number"),
    Column("share", "Share of the layer", "share"),
    Column("times", "Times the even share", "amount", lambda row: row["times"]),
)


class ExpertsAsked(TableAsked):
    tier: str = Field(default="", max_length=64)
    period: str = Field(default="24h", pattern="^(24h|7d|30d)$")
    workspace: str = Field(default="", max_length=64)


@dataclass(frozen=True, slots=True)
class Found:
    """`tier` is empty if nothing was ever sampled. `workspaces`: ids and names."""

    tiers: Sequence[str]
    tier: str
    workspaces: Sequence[tuple[str, str]]
    points: Sequence[LayerPoint]


def experts_router(console: Console) -> APIRouter:
    router = console.router()

    @router.get("/operator/experts")
    async def show(request: Request, asked: Annotated[ExpertsAsked, Query()]) -> Response:
        visitor = await console.operator(request)
        now_ms = console.services.clock.now_ms()
        found = await console.read(lambda session: _read(session, asked, now_ms))
        layers = _layers(found.points)
        kept = {"tier": found.tier, "period": asked.period, "workspace": asked.workspace}
        table = make_table(
            "experts", PATH, COLUMNS, _rows(layers), asked, {key: value for key, value in kept.items() if value}
        )
        context = {
            "asked": asked,
            "found": found,
            "periods": list(PERIODS.items()),
            "tier_choices": [(tier, tier) for tier in found.tiers],
            "layers": layers,
            "worst": max(layers, key=lambda layer: layer.max_over_mean, default=None),
            "least": min(layers, key=lambda layer: layer.entropy, default=None),
            "heatmap": _heatmap(layers),
            "balance": _over_time(found.points, layers, asked.period, entropy=False),
            "entropy": _over_time(found.points, layers, asked.period, entropy=True),
        }
        return await answer_table(console, request, "pages/experts.html", table, visitor=visitor, context=context)

    return router


def _read(session: Session, asked: ExpertsAsked, now_ms: int) -> Found:
    """A few queries, whatever was sampled: hours for a day, days for longer."""
    tiers = sampled_tiers(session)
    tier = asked.tier if asked.tier in tiers else next(iter(tiers), "")
    if not tier:
        return Found(tiers, "", [], [])
    if asked.period in DAYS:
        start_ms = day_start_ms(now_ms) - (DAYS[asked.period] - 1) * DAY_MS
    else:
        start_ms = now_ms - now_ms % HOUR_MS - 23 * HOUR_MS
    points = layer_points(session, tier, start_ms, now_ms + 1, asked.workspace or None, by_day=asked.period in DAYS)
    ids = sampled_workspaces(session, tier, day_start_ms(start_ms), WORKSPACES_MAX)
    return Found(tiers, tier, _named(session, ids), points)


def _named(session: Session, ids: Sequence[str]) -> list[tuple[str, str]]:
    query = (
        select(Workspace.id, Organisation.name, Workspace.name)
        .join(Organisation, Organisation.id == Workspace.organisation_id)
        .where(Workspace.id.in_(ids))
    )
    names = {row[0]: f"{row[1]} / {row[2]}" for row in session.execute(query)}
    return sorted(((each, names.get(each, each)) for each in ids), key=lambda pair: pair[1].casefold())


def _layers(points: Sequence[LayerPoint]) -> list[LayerCounts]:
    """Over the whole time."""
    sums: dict[int, list[int]] = {}
    for point in points:
        known = sums.setdefault(point.layer.layer, [0] * len(point.layer.counts))
        for expert, count in enumerate(point.layer.counts):
            known[expert] += count
    return [LayerCounts(layer, tuple(sums[layer])) for layer in sorted(sums)]


def _rows(layers: Sequence[LayerCounts]) -> list[Row]:
    """The experts that are chosen too often come first."""
    rows = [
        {
            "layer": layer.layer,
            "expert": expert,
            "tokens": layer.counts[expert],
            "share": share,
            "times": round(share / layer.uniform_share, EVEN_DIGITS),
        }
        for layer in layers
        for expert, share in enumerate(layer.shares)
    ]
    return sorted(rows, key=lambda row: -row["times"])


def _heatmap(layers: Sequence[LayerCounts]) -> dict[str, Any]:
    """In percent of the layer's tokens."""
    return {
        "kind": "heatmap",
        "x": [f"expert {number}" for number in range(len(layers[0].counts) if layers else 0)],
        "y": [f"layer {layer.layer}" for layer in layers],
        "cells": [
            [expert, place, round(100 * share, EVEN_DIGITS)]
            for place, layer in enumerate(layers)
            for expert, share in enumerate(layer.shares)
        ],
        "middle": 100 * layers[0].uniform_share if layers else 0,
        "unit": "%",
    }


def _over_time(
    points: Sequence[LayerPoint], layers: Sequence[LayerCounts], period: str, *, entropy: bool
) -> dict[str, Any]:
    """The most uneven layers, and the mean of all."""

    def value_of(layer: LayerCounts) -> float:
        return round(layer.entropy if entropy else layer.max_over_mean, EVEN_DIGITS)

    starts = sorted({point.start_ms for point in points})
    values = {(point.start_ms, point.layer.layer): value_of(point.layer) for point in points}
    uneven = sorted(layers, key=lambda layer: -layer.max_over_mean)[:LINES_MAX]
    means = [
        round(fmean(values[at, one.layer] for one in layers if (at, one.layer) in values), EVEN_DIGITS) for at in starts
    ]
    series = [
        {"name": f"layer {layer.layer}", "data": [values.get((at, layer.layer)) for at in starts]} for layer in uneven
    ]
    return {
        "kind": "line",
        "x": [day(at, "UTC") if period in DAYS else moment(at, "UTC")[5:16] for at in starts],
        "unit": "",
        "scale": True,
        "series": [{"name": "mean of all layers", "data": means}, *series],
    }
