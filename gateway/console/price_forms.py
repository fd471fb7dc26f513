"""A list of prices as a form says it: a row for each tier, for everybody, a plan or an organisation."""

import re
from itertools import zip_longest
from typing import Annotated, Any

from fastapi import Request
from pydantic import BeforeValidator, Field

from billing.price_lists import BATCH_PERCENT, PriceFile, parse_price_list
from core.errors import VALIDATION, PlatformError
from gateway.accounts.models import NAME_LENGTH_MAX
from gateway.console.entrance import Fields
from gateway.console.forms import Fields as Sent
from gateway.console.forms import parse_form

TIERS_MAX = 100
MOMENT_CHARS_MAX = 16  # 2026-11-22T14:05
_PLACE = re.compile(r"^prices\.(\d+)\.?")


def _several(value: object) -> object:
    return [value] if isinstance(value, str) else value


Texts = Annotated[list[str], BeforeValidator(_several), Field(max_length=TIERS_MAX)]


class PricesForm(Fields):
    """`start` is in UTC, empty: as soon as may be. The texts of a row are at the same place of each list; a tier
    without an input price is left as it is. `organisation`: a name or an id.
    """

    version: str = Field(max_length=24)
    start: str = Field(
        default="", max_length=MOMENT_CHARS_MAX, pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2})?$"
    )
    note: str = Field(default="", max_length=200)
    plan: str = Field(default="", max_length=NAME_LENGTH_MAX)
    organisation: str = Field(default="", max_length=NAME_LENGTH_MAX)
    tier: Texts
    input: Texts = Field(default_factory=list)
    cached: Texts = Field(default_factory=list)
    output: Texts = Field(default_factory=list)
    batch: Texts = Field(default_factory=list)

    def to_file(self, organisation: str) -> PriceFile:
        """For the organisation with this id, or for whom the form says. Raises PlatformError (VALIDATION)."""
        if self.plan and organisation:
            raise PlatformError(VALIDATION, "Choose a plan or an organisation, not both.", param="organisation")
        rows = zip_longest(self.tier, self.input, self.cached, self.output, self.batch, fillvalue="")
        said = [_line(self.plan, organisation, *row) for row in rows if row[0] and row[1]]
        if not said:
            raise PlatformError(VALIDATION, "Give one tier a price at least.", param="input")
        raw: dict[str, Any] = {"version": self.version, "note": self.note, "prices": said}
        if self.start:
            raw["start"] = f"{self.start}:00Z"
        try:
            found = parse_price_list(raw)
        except PlatformError as error:
            told = _PLACE.sub(lambda place: f"{said[int(place[1])]['tier']}, ", error.message)
            raise PlatformError(VALIDATION, told.replace("Value error, ", ""), param=error.param) from error
        return PriceFile(found.version, found.entries(), found.start_ms, found.note)


def read_query(request: Request) -> PricesForm:
    """The same fields from the address of a page."""
    fields: dict[str, str | list[str]] = {}
    for name in request.query_params:
        values = request.query_params.getlist(name)
        fields[name] = values[0] if len(values) == 1 else values
    sent: Sent = fields
    return parse_form(PricesForm, sent)


def _line(plan: str, organisation: str, tier: str, new: str, cached: str, output: str, batch: str) -> dict[str, Any]:
    line: dict[str, Any] = {"tier": tier, "input": _plain(new), "output": _plain(output) or "0"}
    if cached:
        line["cached"] = _plain(cached)
    if plan:
        line["plan"] = plan
    if organisation:
        line["organisation"] = organisation
    line["batch_percent"] = int(batch) if batch.isascii() and batch.isdigit() else batch or BATCH_PERCENT
    return line


def _plain(amount: str) -> str:
    """Digits and one point, as a price is written; anything else is refused where it is read."""
    if not re.fullmatch(r"[0-9]{0,5}(\.[0-9]{1,6})?", amount):
        raise PlatformError(VALIDATION, "A price is a number such as 0.14, with at most six decimals.", param="input")
    return amount
