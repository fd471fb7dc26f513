"""Revenue: what was used and what the ledger booked are one sum, for operators only."""

import csv
import io
from datetime import UTC, datetime
from itertools import count, islice

import pytest

from billing.days import month_start_ms
from billing.grants import grant
from billing.records import store
from billing.revenue import Span, booked_in, revenue_by_organisation, revenue_by_tier, total_of
from billing.seal import SETTLING_MS, seal_closed_hours
from core.errors import PlatformError
from gateway.accounts.roles import Role
from tests.books import fund
from tests.console.queries import counted
from tests.console.world import text_of
from tests.usage_events import usage_event

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
PATH = "/operator/revenue"
TIERS = ("mistral-tiny", "mistral-small")


def ms(*parts):
    return round(datetime(*parts, tzinfo=UTC).timestamp()) * 1_000


NOW_MS = ms(2026, 11, 22, 12)


def use(console):
    """Three months of two organisations, one of them with credit that was given, and one request that nobody pays."""
    ash, birch = console.ash.id, console.birch.id
    database = console.accounts.database
    clock = console.accounts.clock
    clock.advance(ms(2026, 9, 1) - clock.now_ms())
    with database.unit_of_work() as session:
        grant(session, ash, 7 * 10**12, key="hello", clock=clock)
    fund(database, ash, birch)
    numbers = count(1)
    for month in (9, 10, 11):
        for day in (1, 15, 20):
            at_ms = ms(2026, month, day, 23, 30)
            batch = []
            for number in islice(numbers, 8):
                owner = ash if number % 3 else birch
                batch.append(
                    usage_event(number, organisation=owner, tier=TIERS[number % 2], admitted_ms=at_ms + number)
                )
            store(database, batch, at_ms + 1_000)
    closed = usage_event(500, organisation=birch, epoch=9, admitted_ms=ms(2026, 10, 2))
    store(database, [closed], ms(2026, 10, 2) + 500)
    clock.advance(NOW_MS - clock.now_ms())


def read(console, span):
    with console.accounts.database.reading() as session:
        lines = revenue_by_tier(session, span)
        return lines, revenue_by_organisation(session, span, 10), booked_in(session, span)


async def test_what_was_used_is_what_the_ledger_booked(console):
    use(console)
    months = [Span(ms(2026, month, 1), ms(2026, month + 1, 1)) for month in (9, 10, 11)]
    spans = [*months, Span(ms(2026, 9, 1), ms(2026, 12, 1)), Span(ms(2026, 9, 15), ms(2026, 11, 16))]
    for sealed in (False, True):
        if sealed:
            with console.accounts.database.unit_of_work() as session:
                assert seal_closed_hours(session, ms(2026, 10, 16) + SETTLING_MS) > 3
        found = [read(console, span) for span in spans]
        for lines, organisations, booked in found:
            total, same = total_of(lines, 0), total_of(organisations, 0)
            assert total.requests > 0
            assert total == same
            assert total.cost_nano == booked.paid_nano + booked.promo_nano
            assert total.loss_nano == booked.lost_nano == booked.borne_nano
        assert sum(each[2].usage_nano for each in found[:3]) == found[3][2].usage_nano
        assert found[1][2].lost_nano == 10**12 + 500
        assert found[0][2].given_nano == 7 * 10**12
        assert found[0][2].promo_nano == 7 * 10**12 + 2 * 1_500_000_000, "with what their plan gave them before"
        assert {line.start_ms for line in found[4][0]} == {month_start_ms(each.from_ms) for each in months}


async def test_by_day_and_by_month_are_one_sum(quick_console):
    use(quick_console)
    span = Span(ms(2026, 10, 1), ms(2026, 11, 1))
    with quick_console.accounts.database.reading() as session:
        days = revenue_by_tier(session, span, by_day=True)
        assert total_of(days, 0) == total_of(revenue_by_tier(session, span), 0)
        assert {line.start_ms for line in days} == {ms(2026, 10, day) for day in (1, 2, 15, 20)}
        with pytest.raises(PlatformError, match="At most 62 days"):
            revenue_by_tier(session, Span(0, 63 * DAY_MS), by_day=True)


async def test_the_page_tells_sums_tables_and_the_ledger(console):
    use(console)
    browser = console.as_operator()
    with counted(console.accounts.database) as statements:
        page = await browser.get(f"{PATH}?period=year")
    assert len(statements) <= 9, statements  # three of them for who looks
    text = text_of(page)
    assert "2025-12-01 to 2026-11-30" in text
    assert "Equal to what was used above, to the nano-unit" in text
    assert "mistral-small" in text
    assert "ash" in text
    exported = await browser.get(f"{PATH}?period=year&about=organisations&format=csv")
    rows = list(csv.DictReader(io.StringIO(exported.text)))
    booked = read(console, Span(ms(2025, 12, 1), ms(2026, 12, 1)))[2]
    assert sum(int(row["cost_nano"]) for row in rows) == booked.paid_nano + booked.promo_nano
    assert {row["name"] for row in rows} == {"ash", "birch"}
    tiers = await browser.get(f"{PATH}?period=year&about=tiers&format=csv&sort=tier")
    assert [row["tier"] for row in csv.DictReader(io.StringIO(tiers.text))] == sorted(TIERS)
    one = text_of(await browser.get(f"{PATH}?period=year&about=organisations&q=birch"))
    assert "1 of 2 organisations" in one
    assert "2 tiers" in one, "the other table is not filtered"


async def test_the_rest_of_many_organisations_is_one_row(quick_console, monkeypatch):
    monkeypatch.setattr("gateway.console.revenue.ORGANISATIONS_MAX", 1)
    use(quick_console)
    exported = await quick_console.as_operator().get(f"{PATH}?period=year&format=csv")
    rows = list(csv.DictReader(io.StringIO(exported.text)))
    assert [row["name"] for row in rows] == ["ash", "All others"]
    whole = read(quick_console, Span(ms(2025, 12, 1), ms(2026, 12, 1)))[0]
    assert sum(int(row["requests"]) for row in rows) == total_of(whole, 0).requests


async def test_periods_are_chosen_and_checked(quick_console):
    use(quick_console)
    browser = quick_console.as_operator()
    for query, says in (
        ("", "2026-11-01 to 2026-11-30"),
        ("period=last", "2026-10-01 to 2026-10-31"),
        ("period=custom&first=2026-10-02&last=2026-10-02", "for 1 request "),
        ("period=custom", "2026-11-01 to 2026-11-22"),
        ("period=custom&first=2026-11-02&last=2026-11-03", "Nothing was used in this time"),
    ):
        assert says in text_of(await browser.get(f"{PATH}?{query}"))
    for query in ("first=2026-11-02&last=2026-11-01", "first=yesterday", "first=2001-01-01", "last=9999-12-31"):
        assert (await browser.get(f"{PATH}?period=custom&{query}")).status_code == 422


async def test_only_operators_see_it(quick_console):
    for role in Role:
        browser = quick_console.as_role(role.value)
        answer = await browser.get(PATH)
        assert answer.status_code in {403, 404}
        assert "Paid for by customers" not in text_of(answer)
        assert PATH not in (await browser.get(f"/o/{quick_console.ash.id}/workspaces")).text
    assert (await quick_console.browser().get(PATH)).status_code == 303


async def test_the_page_opens_with_those_at_the_top_and_the_rest_as_one(quick_console, monkeypatch):
    monkeypatch.setattr("gateway.console.revenue.TOP", 0)
    use(quick_console)
    browser = quick_console.as_operator()
    page = await browser.get(f"{PATH}?period=year")
    assert "2 organisations" in text_of(page)
    assert "All others (2) Show all" in text_of(page)
    assert ">birch<" not in page.text
    for query in ("everybody=true", "sort=name", "q=birch"):
        assert ">birch<" in (await browser.get(f"{PATH}?period=year&{query}")).text
