"""The journal of an organisation's account: whatever changed its credit, newest first."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session
from starlette.responses import Response

from billing.statements import KINDS as BOOKED
from billing.statements import AccountLine, account_lines
from gateway.console.billing import enter_billing
from gateway.console.billing_rows import KINDS
from gateway.console.desk import Console
from gateway.console.feed import CSV_ROWS_MAX, FEED_ROWS, Feed, day_start_ms
from gateway.console.listing import csv_file
from gateway.console.table import Column, Row, csv_of
from gateway.console.visitor import Place

COLUMNS = (
    Column("booked_ms", "Booked", "time"),
    Column("kind", "Kind", "cell"),
    Column("note", "Note"),
    Column("amount_nano", "Amount", "money"),
    Column("owed_nano", "Of it on credit", "money"),
    Column("id", "Transaction", "cell"),
)
EXPORTED = tuple(
    Column(name, name) for name in ("id", "booked_ms", "kind", "note", "amount_nano", "prepaid_nano", "owed_nano")
)


class JournalAsked(BaseModel):
    kind: str = Field(default="", max_length=32)
    since: str = Field(default="", max_length=10)
    until: str = Field(default="", max_length=10)
    before: str = Field(default="", pattern=r"^([0-9]{1,16}\.[0-9]{1,16})?$")
    format: str = Field(default="html", pattern="^(html|csv)$")

    def kept(self) -> dict[str, str]:
        parts = self.model_dump(include={"kind", "since", "until"})
        return {name: value for name, value in parts.items() if value}

    def cursor(self) -> tuple[int, int] | None:
        if not self.before:
            return None
        booked_ms, _, number = self.before.partition(".")
        return int(booked_ms), int(number)


def journal_router(console: Console) -> APIRouter:
    router = console.router()

    @router.get("/o/{organisation}/billing/journal")
    async def show(request: Request, organisation: str, asked: Annotated[JournalAsked, Query()]) -> Response:
        place = await enter_billing(console, request, organisation)
        if asked.format == "csv":
            found = await console.read(lambda session: _lines(session, place, asked, CSV_ROWS_MAX))
            text = await console.in_thread(lambda: csv_of(EXPORTED, [_row(line) for line in found]))
            return csv_file(text, "journal")
        lines = await console.read(lambda session: _lines(session, place, asked, FEED_ROWS + 1))
        context: dict[str, Any] = {
            "feed": _feed(place, asked, lines),
            "asked": asked,
            "kinds": {kind: KINDS[kind] for kind in BOOKED},
            "csv_rows_max": CSV_ROWS_MAX,
        }
        return await console.page(request, "pages/billing_journal.html", context, place=place)

    return router


def _lines(session: Session, place: Place, asked: JournalAsked, count: int) -> list[AccountLine]:
    return account_lines(
        session,
        place.id,
        count,
        before=asked.cursor() if asked.format == "html" else None,
        kinds=(asked.kind,) if asked.kind else (),
        from_ms=day_start_ms(asked.since, place.zone, "since"),
        until_ms=day_start_ms(asked.until, place.zone, "until", days_later=1),
    )


def _feed(place: Place, asked: JournalAsked, lines: list[AccountLine]) -> Feed:
    shown = lines[:FEED_ROWS]
    older = f"{shown[-1].booked_ms}.{shown[-1].id}" if len(lines) > FEED_ROWS else ""
    return Feed(
        id="journal",
        path=f"{place.path}/billing/journal",
        columns=COLUMNS,
        rows=[_row(line) for line in shown],
        older=older,
        newest=not asked.before,
        kept=asked.kept(),
    )


def _row(line: AccountLine) -> Row:
    return {
        "id": line.id,
        "booked_ms": line.booked_ms,
        "kind": line.kind,
        "title": KINDS.get(line.kind, line.kind),
        "note": line.note,
        "amount_nano": line.amount_nano,
        "prepaid_nano": line.prepaid_nano,
        "owed_nano": line.owed_nano,
    }
