"""How a page with a table answers: as a page, or as a CSV file of all rows that match."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from starlette.responses import Response

from gateway.console.desk import Console
from gateway.console.pages import HEADERS
from gateway.console.table import Table, csv_of
from gateway.console.visitor import Place, Visitor


async def answer_table(
    console: Console,
    request: Request,
    template: str,
    table: Table,
    place: Place | None = None,
    *,
    visitor: Visitor | None = None,
    context: Mapping[str, Any] | None = None,
) -> Response:
    """The template finds it as `table`, beside what `context` says."""
    if table.asked.format == "csv":
        shown = [column for column in table.columns if column.title]
        text = await console.in_thread(lambda: csv_of(shown, table.rows))
        return csv_file(text, table.id)
    return await console.page(request, template, {"table": table, **(context or {})}, place=place, visitor=visitor)


def csv_file(text: str, name: str) -> Response:
    headers = {**HEADERS, "content-disposition": f'attachment; filename="{name}.csv"'}
    return Response(text, media_type="text/csv; charset=utf-8", headers=headers)
