"""Usage: sums that equal the ledger, over any range and grouping, on the page and in files; what who sees."""

import csv
import io
import json
import random

import pytest

from billing.journal import balances
from billing.models import UsageRecord
from billing.usage import Period
from core.errors import PlatformError
from gateway.accounts.roles import Role
from gateway.console.charts import REST, stacked
from gateway.console.ranges import fitting, usual, window_of
from tests.books import CREDIT_NANO, rows_of
from tests.console.usage_world import Usage
from tests.console.world import text_of

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
NOW_MS = 1_700_000_000_000  # 2023-11-14, 23:13 in Paris
QUERIES_MAX = 16
SUMS = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_nano")


def spread(usage, count=80, days=40):
    """Over tiers, two workspaces and their keys."""
    chance = random.Random(4)
    places = [usage.workspace("mine"), usage.workspace("other")]
    events = []
    for _ in range(count):
        workspace, key = chance.choice(places)
        events.append(
            usage.event(
                chance.randrange(days * DAY_MS),
                workspace=workspace,
                key_id=key,
                tier=chance.choice(("auto", "code")),
                cost_nano=chance.randrange(10**12),
                outcome=chance.choice(("finished", "finished", "failed")),
            )
        )
    usage.store(*events, usage.event(tenant=usage.console.birch))
    return places


def shown(amount_nano):
    whole, rest = divmod(amount_nano, 10**9)
    return f"{whole:,}".replace(",", " ") + "." + f"{rest:09d}".rstrip("0").ljust(2, "0")


async def test_the_sums_equal_the_ledger_to_the_nano(console):
    usage = Usage(console)
    spread(usage)
    browser, path = console.as_role("billing"), f"/o/{console.ash.id}/usage"
    accounts = console.accounts.see(balances, f"prepaid:{console.ash.id}")
    charged_nano = CREDIT_NANO + 1_500_000_000 - accounts[f"prepaid:{console.ash.id}"]
    for group in ("none", "tier", "workspace", "key"):
        for rows in ("sums", "lines"):
            page = text_of(await browser.get(f"{path}?range=12m&group={group}&rows={rows}"))
            assert f"{shown(charged_nano)} EUR" in page.split("Total")[1], (group, rows)
    for grain in ("day", "month"):
        lines = await browser.get(
            f"{path}?range=custom&from=2023-09-25&to=2023-11-14&grain={grain}&format=csv&rows=lines"
        )
        found = list(csv.DictReader(io.StringIO(lines.text)))
        assert sum(int(line["cost_nano"]) for line in found) == charged_nano


async def test_files_have_the_lines_of_the_table(console):
    usage = Usage(console)
    spread(usage)
    browser, path = console.as_role("viewer"), f"/o/{console.ash.id}/usage"
    mine = [row for row in rows_of(console.accounts.database, UsageRecord) if row["organisation"] == console.ash.id]
    for asked in ("range=12m&group=key&rows=sums", "range=12m&group=tier&rows=lines&grain=month"):
        as_csv = list(csv.DictReader(io.StringIO((await browser.get(f"{path}?{asked}&format=csv")).text)))
        answer = await browser.get(f"{path}?{asked}&format=jsonl")
        assert answer.headers["content-disposition"] == 'attachment; filename="usage-2022-12-01-to-2023-11-14.jsonl"'
        as_json = [json.loads(line) for line in answer.text.splitlines()]
        for name in SUMS:
            expected = sum(row[name] for row in mine)
            assert sum(line[name] for line in as_json) == sum(int(line[name]) for line in as_csv) == expected
        assert len(as_json) == len(as_csv) == (2 if "key" in asked else 4)


async def test_who_sees_one_workspace_is_told_sums_of_that_one(quick_console):
    usage = Usage(quick_console)
    (mine, my_key), (_, other_key) = spread(usage)
    browser = quick_console.browser(quick_console.user("wanda", quick_console.ash, "viewer", workspace=mine))
    rows = [row for row in rows_of(quick_console.accounts.database, UsageRecord) if row["workspace"] == mine]
    path = f"/o/{quick_console.ash.id}/usage?range=12m&group=key"
    page = text_of(await browser.get(path))
    assert shown(sum(row["cost_nano"] for row in rows)) in page.split("Total")[1]
    assert "mine key" in page
    assert "other key" not in page
    exported = await browser.get(f"{path}&format=csv")
    assert my_key in exported.text
    assert other_key not in exported.text


async def test_names_of_keys_are_for_those_who_may_see_keys(quick_console):
    usage = Usage(quick_console)
    (_, my_key), _ = spread(usage)
    path = f"/o/{quick_console.ash.id}/usage?range=12m&group=key"
    for role in Role:
        page = await quick_console.as_role(role.value).get(path)
        assert page.status_code == 200
        assert my_key in page.text
        assert ("mine key" in page.text) == (role is not Role.BILLING)
    assert (await quick_console.as_role("owner", quick_console.birch).get(path)).status_code == 404


async def test_a_time_without_usage_says_so_and_one_that_cannot_be_is_refused(quick_console):
    Usage(quick_console)
    browser, path = quick_console.as_role("viewer"), f"/o/{quick_console.ash.id}/usage"
    assert "Nothing was used in this time" in text_of(await browser.get(path))
    for wrong in ("range=custom&from=2023-11-10&to=2023-11-01", "range=custom&from=1000-01-01", "range=ever"):
        assert (await browser.get(f"{path}?{wrong}")).status_code == 422


async def test_the_page_costs_a_handful_of_queries(console):
    usage = Usage(console)
    spread(usage)
    browser = console.as_role("owner")
    for group in ("none", "tier", "workspace", "key"):
        with usage.statements() as sent:
            await browser.get(f"/o/{console.ash.id}/usage?range=30d&rows=lines&group={group}")
        assert len(sent) <= QUERIES_MAX


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("today", "2023-11-14", "2023-11-14"),
        ("7d", "2023-11-08", "2023-11-14"),
        ("30d", "2023-10-16", "2023-11-14"),
        ("month", "2023-11-01", "2023-11-14"),
        ("last_month", "2023-10-01", "2023-10-31"),
        ("12m", "2022-12-01", "2023-11-14"),
    ],
)
def test_ranges_are_days_of_the_zone(name, first, last):
    window = window_of(name, "", "", "Europe/Paris", NOW_MS)
    assert window.id == f"{first}/{last}"
    assert window == window_of("custom", first, last, "Europe/Paris", NOW_MS)
    assert window.end_ms <= NOW_MS + 900_000
    assert usual(window, fitting(window, by_key=True)) in fitting(window, by_key=True)


def test_steps_fit_the_range():
    def fits(name):
        return fitting(window_of(name, "", "", "Asia/Kolkata", NOW_MS))

    assert fits("today") == [Period.HOUR, Period.DAY]
    assert fits("30d") == [Period.DAY, Period.MONTH]
    assert fits("12m") == [Period.MONTH]
    quarter = window_of("custom", "2023-08-15", "2023-11-14", "Asia/Kolkata", NOW_MS)
    assert fitting(quarter) == [Period.DAY, Period.MONTH]
    assert fitting(quarter, by_key=True) == [Period.MONTH], "there are far more rows by key"
    with pytest.raises(PlatformError):
        window_of("custom", "2010-01-01", "2023-01-01", "UTC", NOW_MS)


def test_a_chart_has_the_largest_groups_and_one_for_the_rest():
    values = [(0, f"group {number}", number) for number in range(1, 10)] + [(1, "group 9", 1)]
    chart = stacked([(0, "a"), (1, "b")], values, unit="", scale=1, show=str)
    assert [each["name"] for each in chart["series"]] == [f"group {number}" for number in (9, 8, 7, 6, 5)] + [REST]
    assert chart["series"][-1]["data"] == [1 + 2 + 3 + 4, 0]
    assert chart["series"][0]["exact"] == ["9", "1"]
