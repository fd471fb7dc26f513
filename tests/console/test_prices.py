"""Prices on the operators' pages: what is in force, a list looked at and put into force."""

import re

from billing.price_lists import PriceEntry, PriceFile
from billing.prices import PriceScope
from gateway.accounts.pricing import change_prices
from gateway.accounts.roles import Role
from tests.console.queries import counted
from tests.console.world import text_of

PATH = "/operator/prices"
LIST = {"version": "2023-12", "start": "2023-12-01T00:00", "note": "winter"}
ROWS = [("auto", "0.21", "", "0.42"), ("manual", "", "", ""), ("code", "1", "1", "2"), ("embed", "0.10", "", "0")]


def fields(rows=ROWS, **changes):
    """As a browser sends the form: one field of each name for each tier."""
    tiers, new, cached, output = (list(column) for column in zip(*rows, strict=True))
    sent = {"tier": tiers, "input": new, "cached": cached, "output": output, "batch": ["50"] * len(rows)}
    return {**LIST, **sent, **changes}


async def test_a_list_is_looked_at_and_scheduled(console):
    browser = console.as_operator()
    with counted(console.accounts.database) as statements:
        preview = await browser.get(f"{PATH}/preview", params=fields())
    assert len(statements) <= 9, statements
    text = text_of(preview)
    assert "1 of 3 prices, from 2023-12-01 00:00:00 UTC, for 3 organisations" in text
    assert "auto 0.14 → 0.21 +50.0 % 0.14 → 0.21 +50.0 % 0.42 50 %" in text
    assert "code stays" in text
    assert "manual" not in text.split("Batch pays")[1], "a tier without a price is left as it is"
    part = await browser.get(f"{PATH}/preview", params=fields(), headers={"hx-request": "true"})
    assert "<html" not in part.text
    assert "apply-form" in part.text
    assert "2023-12" not in text_of(await browser.get(PATH)).split("Version")[1], "nothing is written yet"
    done = await browser.post(PATH, **fields())
    assert (done.status_code, done.headers["location"]) == (303, f"/console{PATH}")
    page = text_of(await browser.get(PATH))
    assert "1 price of 2023-12 starts at 2023-12-01 00:00 UTC." in page
    assert "auto everybody scheduled 2023-12-01 0.21 EUR 0.21 EUR 0.42 EUR 50.0 % 2023-12 winter" in page
    assert "auto everybody in force until 2023-12-01 the launch 0.14 EUR" in page
    again = await browser.post(PATH, **fields())
    assert again.status_code == 303
    assert "Nothing differs" in text_of(await browser.get(PATH)), "sent twice it is there once"
    log = text_of(await browser.get("/operator/audit?action=price.apply")).split("Changes")[1]
    assert "input 0.14 0.21" in log


async def test_an_organisation_gets_a_price_of_its_own(console):
    browser, ash = console.as_operator(), console.ash
    form = await browser.get(f"{PATH}/new?organisation=ash")
    assert f'name="organisation" value="{ash.id}"' in form.text
    assert re.search(r'name="input" value="0\.14"[^>]*aria-label="Input of auto"', form.text)
    own = fields([("auto", "0.07", "0.01", "0.20")], organisation=ash.id, start="", version="deal")
    text = text_of(await browser.get(f"{PATH}/preview", params=own))
    assert "What changes for ash" in text
    assert "auto of its own from then on" in text
    assert "0.14 → 0.01 −92.9 %" in text  # noqa: RUF001 - a minus sign
    assert (await browser.post(PATH, **own)).status_code == 303
    log = text_of(await console.as_role("owner").get(f"/o/{ash.id}/audit?action=price.apply"))
    assert "organisation" in log.split("Changes")[1], "in its own audit log"
    assert "auto ash scheduled" in text_of(await browser.get(f"{PATH}?kind=organisation"))
    console.accounts.clock.advance(120_000)
    assert "auto ash in force" in text_of(await browser.get(f"{PATH}?kind=organisation"))
    assert "everybody" not in text_of(await browser.get(f"{PATH}?kind=organisation")).split("Version")[1]
    theirs = await console.as_role("billing").get(f"/o/{ash.id}/billing/prices?q=auto")
    assert "auto 0.07 EUR 0.01 EUR 0.20 EUR 50.0 % ash" in text_of(theirs)


async def test_past_versions_are_shown_when_asked_for(quick_console):
    accounts = quick_console.accounts
    entry = PriceEntry(PriceScope("auto", plan="development"), 100_000, 100_000, 100_000)
    accounts.do(change_prices, PriceFile("first", (entry,)), tiers=["auto"])
    accounts.clock.advance(120_000)
    later = PriceEntry(PriceScope("auto", plan="development"), 110_000, 110_000, 110_000)
    accounts.do(change_prices, PriceFile("second", (later,)), tiers=["auto"])
    accounts.clock.advance(120_000)
    browser = quick_console.as_operator()
    now = text_of(await browser.get(f"{PATH}?kind=plan"))
    assert "plan development in force" in now
    assert "first" not in now
    everything = text_of(await browser.get(f"{PATH}?kind=plan&past=true"))
    assert "plan development past" in everything
    exported = await browser.get(f"{PATH}?kind=plan&past=true&format=csv")
    assert [line.split(",")[2] for line in exported.text.splitlines()] == ["state", "in force", "past"]


async def test_what_is_wrong_is_said_where_it_is(quick_console):
    browser = quick_console.as_operator()
    for changes, says in (
        ({"version": "not a name"}, "version"),
        ({"start": "2001-01-01T00:00"}, "past"),
        ({"start": "tomorrow"}, "Start"),
        ({"input": ["1,5", "", "", ""]}, "A price is a number"),
        ({"cached": ["0.9", "", "", ""]}, "auto, "),
        ({"input": ["", "", "", ""]}, "one tier"),
        ({"plan": "nothing"}, "no plan"),
        ({"organisation": "nobody"}, "no organisation"),
        ({"plan": "development", "organisation": "ash"}, "not both"),
        ({"batch": ["101", "", "", ""]}, "auto, "),
    ):
        refused = await browser.post(PATH, **fields(**changes))
        assert refused.status_code in {404, 422}, changes
        assert says in text_of(refused), (changes, text_of(refused))
    assert "2023-12" not in text_of(await browser.get(PATH)).split("Version")[1]


async def test_only_operators_see_prices_of_all(quick_console):
    for role in Role:
        browser = quick_console.as_role(role.value)
        for path in (PATH, f"{PATH}?format=csv", f"{PATH}/new", f"{PATH}/preview"):
            assert (await browser.get(path)).status_code == 403, (role, path)
        assert (await browser.post(PATH, **fields())).status_code == 403, role
