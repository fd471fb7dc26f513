"""A table of a page: sorted, filtered and cut into pages on the server, and the same rows as a CSV file.

For lists that are bounded and held whole. What grows without bound (requests, the audit log) is paged in SQL instead.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Query
from pydantic import BaseModel, Field

PAGE_ROWS = 50
FILTER_CHARS_MAX = 128
RISKY = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would take such a text for a formula

Row = Mapping[str, Any]


class TableAsked(BaseModel):
    """What the query says about a table. `sort` begins with "-" for the largest first."""

    sort: str = Field(default="", max_length=64)
    q: str = Field(default="", max_length=FILTER_CHARS_MAX)
    page: int = Field(default=1, ge=1, le=10_000)
    format: str = Field(default="html", pattern="^(html|csv)$")


Asked = Annotated[TableAsked, Query()]


@dataclass(frozen=True, slots=True)
class Column:
    """`kind`: text, number, money, time, share or html-free `cell`, which the page's template draws by itself.
    `value`: what is sorted by, searched in and exported; default: the row's entry of this name.
    """

    name: str
    title: str
    kind: str = "text"
    value: Callable[[Row], Any] | None = None
    sortable: bool = True
    unit: str = ""

    def of(self, row: Row) -> Any:
        return row[self.name] if self.value is None else self.value(row)


@dataclass(frozen=True, slots=True)
class Table:
    """One page of it. `id` is the element that a partial update replaces; `path` is where it is asked for."""

    id: str
    path: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    asked: TableAsked
    total: int
    matching: int
    pages: int
    kept: Mapping[str, str] = field(default_factory=dict)

    def link(self, **changes: object) -> str:
        """The table with another sorting, filter or page; what else the page's query says is kept."""
        said = {"sort": self.asked.sort, "q": self.asked.q, "page": self.asked.page, **changes}
        defaults = {"sort": "", "q": "", "page": 1, "format": "html"}
        parts = {name: value for name, value in said.items() if value != defaults.get(name)}
        query = urlencode({**self.kept, **parts})
        return f"{self.path}?{query}" if query else self.path

    def sorting(self, column: Column) -> str:
        """As aria-sort says it."""
        name = self.asked.sort.removeprefix("-")
        if name != column.name:
            return "none"
        return "descending" if self.asked.sort.startswith("-") else "ascending"

    def sort_link(self, column: Column) -> str:
        """Numbers and times begin with the largest, texts with the first."""
        falls = column.kind != "text"
        turned = {"ascending": f"-{column.name}", "descending": column.name}.get(self.sorting(column))
        return self.link(sort=turned or (f"-{column.name}" if falls else column.name), page=1)


def make_table(
    name: str,
    path: str,
    columns: Sequence[Column],
    rows: Iterable[Row],
    asked: TableAsked,
    kept: Mapping[str, str] | None = None,
) -> Table:
    """Rows keep their order unless the query names a column to sort by. `kept`: other parts of the query."""
    everything = list(rows)
    found = _matching(columns, everything, asked.q)
    by = next((each for each in columns if each.sortable and each.name == asked.sort.removeprefix("-")), None)
    if by is not None:
        found.sort(key=lambda row: _sortable(by.of(row)), reverse=asked.sort.startswith("-"))
    pages = max(1, -(-len(found) // PAGE_ROWS))
    page = min(asked.page, pages)
    shown = found if asked.format == "csv" else found[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]
    bounded = asked.model_copy(update={"page": page})
    return Table(name, path, columns, shown, bounded, len(everything), len(found), pages, kept or {})


def csv_of(columns: Sequence[Column], rows: Iterable[Row]) -> str:
    """RFC 4180, with a heading. Money stays in nano-units, times in milliseconds: exact."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(column.name for column in columns)
    writer.writerows([_cell(column.of(row)) for column in columns] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple | set | frozenset):
        value = " ".join(str(each) for each in sorted(value))
    if isinstance(value, str) and value.startswith(RISKY):
        return f"'{value}"
    return "" if value is None else value


def _matching(columns: Sequence[Column], rows: list[Row], wanted: str) -> list[Row]:
    words = wanted.casefold().split()
    if not words:
        return rows
    texts = ((row, " ".join(str(column.of(row)) for column in columns).casefold()) for row in rows)
    return [row for row, text in texts if all(word in text for word in words)]


def _sortable(value: Any) -> tuple[int, Any]:
    """Nothing comes before something, numbers before texts."""
    if value is None:
        return (0, 0)
    if isinstance(value, int | float):
        return (1, value)
    return (2, str(value).casefold())
