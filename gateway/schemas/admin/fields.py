"""Types that several bodies and queries of the admin API share."""

from datetime import UTC, datetime
from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Path, Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field

from billing.money import AMOUNT_NANO_MAX
from billing.usage import local_time

NAME_PATTERN = r"^[^\x00-\x1f\x7f]+$"
ID_PATTERN = "^[ -~]+$"
AMOUNT_PATTERN = r"^[0-9]{1,7}(\.[0-9]{1,9})?$"
YEARS = range(1970, 2201)
PAGE_DEFAULT, PAGE_MAX = 100, 1_000
OFFSET_MAX = 1_000_000_000

Item = TypeVar("Item")


def _bounded(moment: datetime) -> datetime:
    """Elsewhere a change of zone would overflow."""
    if moment.year not in YEARS:
        raise ValueError(f"a year from {YEARS[0]} to {YEARS[-1]}")
    return moment


Id = Annotated[str, Field(min_length=1, max_length=128, pattern=ID_PATTERN)]
IdInPath = Annotated[str, Path(min_length=1, max_length=128, pattern=ID_PATTERN)]
IdInQuery = Annotated[str | None, Query(min_length=1, max_length=128, pattern=ID_PATTERN)]
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=NAME_PATTERN)]
NameInQuery = Annotated[str | None, Query(min_length=1, max_length=128, pattern=NAME_PATTERN)]
Note = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Amount = Annotated[str, Field(pattern=AMOUNT_PATTERN, description='Currency units as a decimal string: "12.50".')]
AmountNano = Annotated[int, Field(description="The same in nano-units, exact.")]
Moment = Annotated[AwareDatetime, AfterValidator(_bounded)]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="Entries in one answer.")]
Offset = Annotated[int, Query(ge=0, le=OFFSET_MAX, description="Entries to leave out at the beginning.")]
LimitValue = Annotated[int, Field(ge=0, le=AMOUNT_NANO_MAX)]


class Page(BaseModel, Generic[Item]):
    """A shorter one than was asked for is the last."""

    object: Literal["list"] = "list"
    data: list[Item]


def iso(at_ms: int) -> str:
    return local_time(at_ms, "UTC")


def iso_or_none(at_ms: int | None) -> str | None:
    return None if at_ms is None else iso(at_ms)


def to_ms(moment: datetime) -> int:
    return round(moment.astimezone(UTC).timestamp() * 1_000)
