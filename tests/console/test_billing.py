"""Billing on its pages: what is left, what was booked, prices, who is billed; credit that operators book."""

import csv
import io
import re

from billing.accounts import lock_account, post
from billing.grants import top_up
from billing.price_lists import PriceEntry, PriceFile
from billing.prices import PriceScope
from core.queue.rules import RuleKind
from gateway.accounts.limits import LimitTerms, Subject, SubjectKind, set_limit
from gateway.accounts.pricing import change_prices
from gateway.accounts.roles import Role
from gateway.console.feed import FEED_ROWS
from tests.console.queries import counted
from tests.console.world import text_of

NANO = 10**9
DAY_MS = 86_400_000
READS = {Role.OWNER, Role.ADMIN, Role.BILLING}
MANAGES = {Role.OWNER, Role.ADMIN, Role.BILLING}


def once_of(response, form):
    """The id that the form was made with."""
    part = response.text[response.text.index(f'id="{form}"') :]
    return re.search(r'name="once" value="([0-9a-f]{32})"', part)[1]


def booked(console, *amounts):
    """Top-ups of ash, as whole units."""
    for amount in amounts:
        with console.accounts.database.unit_of_work() as session:
            key = f"bank {console.accounts.ids.token(8)}"
            top_up(session, console.ash.id, amount * NANO, key=key, clock=console.accounts.clock, note=f"no. {amount}")
        console.accounts.clock.advance(1_000)


async def test_a_top_up_sent_twice_is_booked_once(console):
    browser = console.as_operator()
    path = f"/o/{console.ash.id}/billing"
    once = once_of(await browser.get(path), "top-up-form")
    fields = {"once": once, "amount": "250.00", "note": "transfer 17"}
    for _ in range(2):
        sent = await browser.post(f"{path}/top-ups", **fields)
        assert (sent.status_code, sent.headers["location"]) == (303, f"/console{path}")
    page = text_of(await browser.get(path))
    assert "250.00 EUR are topped up for ash." in page
    assert "Balance 251.50 EUR" in page, "with the 1.50 of the plan"
    assert page.count("transfer 17") == 1
    other = await browser.post(f"{path}/top-ups", **{**fields, "amount": "2500.00"})
    assert other.status_code == 409
    fresh = once_of(await browser.get(path), "top-up-form")
    assert fresh != once, "the next form books the next top-up"
    owner = console.as_role("owner")
    log = text_of(await owner.get(f"/o/{console.ash.id}/audit?action=credit.top_up")).split("Changes")[1]
    assert log.count("transfer 17") == 1, "what an operator does is in the organisation's log, once"


async def test_credit_is_given_with_an_end_and_spent_in_turn(console):
    browser = console.as_operator()
    path = f"/o/{console.ash.id}/billing"
    once = once_of(await browser.get(path), "grant-form")
    given = await browser.post(
        f"{path}/grants", once=once, amount="25", priority="7", expires="2024-02-29", note="sorry for the outage"
    )
    assert given.status_code == 303
    page = text_of(await browser.get(path))
    assert "Given 25.00 EUR 25.00 EUR 7 2024-02-29 sorry for the outage operator" in page
    wrong = await browser.post(f"{path}/grants", once="0" * 32, amount="25", expires="2001-01-01")
    assert wrong.status_code == 422
    assert "past" in text_of(wrong)
    assert (await browser.post(f"{path}/grants", once="0" * 32, amount="1,50")).status_code == 422
    assert (await browser.post(f"{path}/grants", once="not hex", amount="1.50")).status_code == 422


async def test_a_credit_limit_counts_as_available(console):
    browser = console.as_operator()
    path = f"/o/{console.ash.id}/billing"
    assert (await browser.post(f"{path}/limit", amount="500.00")).status_code == 303
    page = text_of(await browser.get(path))
    assert "Available 501.50 EUR for new requests, 500.00 of it on credit" in page
    with console.accounts.database.unit_of_work() as session:
        lock_account(session, console.ash.id)
        assert post(session, console.ash.id, -101 * NANO)
    page = text_of(await browser.get(path))
    assert "Balance −99.50 EUR owed beyond what was paid" in page  # noqa: RUF001 - a minus sign
    refused = await browser.post(f"{path}/limit", amount="50")
    assert (refused.status_code, "used or held" in text_of(refused)) == (409, True)


async def test_the_journal_pages_filters_and_exports(console):
    booked(console, *range(1, 2 * FEED_ROWS + 2))
    browser = console.as_role("billing")
    path, seen = f"/o/{console.ash.id}/billing/journal?kind=topup", []
    with counted(console.accounts.database) as statements:
        first = await browser.get(path)
    assert len(statements) <= 10, statements
    assert " 101.00 EUR 0.00 EUR " in text_of(first)
    while path:
        page = await browser.get(path)
        seen += [int(found) for found in re.findall(r"<td class=\"text\">no\. (\d+)</td>", page.text)]
        older = re.search(r'href="/console([^"]+)" rel="next"', page.text)
        path = older[1].replace("&amp;", "&") if older else None
    assert seen == list(range(2 * FEED_ROWS + 1, 0, -1))
    exported = await browser.get(f"/o/{console.ash.id}/billing/journal?format=csv")
    rows = list(csv.DictReader(io.StringIO(exported.text)))
    assert sum(int(row["prepaid_nano"]) for row in rows) == sum(range(1, 2 * FEED_ROWS + 2)) * NANO + 1_500_000_000
    none = text_of(await browser.get(f"/o/{console.ash.id}/billing/journal?kind=expiry"))
    assert "Nothing here matches" in none
    assert (await browser.get(f"/o/{console.ash.id}/billing/journal?before=x")).status_code == 422


async def test_prices_are_those_of_this_organisation(console):
    accounts, tier = console.accounts, console.services.catalog.tiers[0].name
    start_ms = accounts.clock.now_ms() + 30 * DAY_MS
    for name, start, nano in (("deal", None, 70_000), ("later", start_ms, 90_000)):
        entry = PriceEntry(PriceScope(tier, organisation=console.ash.id), nano, nano, 2 * nano)
        accounts.do(change_prices, PriceFile(name, (entry,), start), tiers=[tier])
    accounts.clock.advance(120_000)
    browser = console.as_role("billing")
    page = text_of(await browser.get(f"/o/{console.ash.id}/billing/prices?q={tier}"))
    assert f"{tier} 0.07 EUR 0.07 EUR 0.14 EUR 50.0 % ash deal:{tier}:org={console.ash.id}" in page
    assert "2023-12-14 0.09 / 0.09 / 0.18" in page
    theirs = console.browser(console.user("bob", console.birch, "billing"))
    page = text_of(await theirs.get(f"/o/{console.birch.id}/billing/prices?q={tier}"))
    assert "deal" not in page
    assert "everybody" in page
    assert "none scheduled" in page


async def test_caps_tell_how_far_they_are(quick_console):
    accounts, ash = quick_console.accounts, quick_console.ash
    subject = Subject(SubjectKind.CUSTOMER, ash.id)
    for kind, units, hard in ((RuleKind.SPEND_PER_DAY, 5, True), (RuleKind.SPEND_PER_MONTH, 40, False)):
        terms = LimitTerms(kind, units * NANO, hard=hard)
        accounts.do(set_limit, subject, terms, within=None, known_tiers=[], ids=accounts.ids)
    browser = quick_console.as_role("billing")
    page = text_of(await browser.get(f"/o/{ash.id}/billing"))
    assert "Spending per day refuses 0.00 of 5.00 EUR" in page
    assert "Spending per month only tells 0.00 of 40.00 EUR" in page
    with counted(accounts.database) as statements:
        await browser.get(f"/o/{ash.id}/billing")
    assert len(statements) <= 14, statements


async def test_who_is_billed_is_changed_and_written_down(console):
    browser = console.as_role("billing")
    path = f"/o/{console.ash.id}/billing/customer"
    fields = {"name": "Ash GmbH", "address": "1 Tree Road\r\nForest", "email": "bills@ash.example"}
    assert (await browser.post(path, **fields, time_zone="Europe/Rome")).status_code == 303
    page = await browser.get(path)
    assert "1 Tree Road\nForest</textarea>" in page.text
    assert '<option value="Europe/Rome" selected>' in page.text
    wrong = await browser.post(path, **fields, time_zone="Europe/Nowhere")
    assert (wrong.status_code, 'data-param="time_zone"' in wrong.text) == (422, False)
    assert "no IANA time zone" in text_of(wrong)
    assert (await browser.post(path, name="Ash GmbH", time_zone="Europe/Rome")).status_code == 303
    assert "Forest" not in (await browser.get(path)).text, "what is emptied is empty"
    log = text_of(await console.as_role("owner").get(f"/o/{console.ash.id}/audit?action=customer.change"))
    assert "time zone UTC Europe/Rome" in log


async def test_what_one_may_not_do_is_neither_shown_nor_possible(quick_console):
    world = quick_console
    for role in Role:
        browser = world.as_role(role.value)
        path = f"/o/{world.ash.id}/billing"
        for each in ("", "/journal", "/prices", "/customer", "/journal?format=csv", "?format=csv"):
            assert (await browser.get(path + each)).status_code == (200 if role in READS else 403), (role, each)
        changed = await browser.post(f"{path}/customer", name="Other", time_zone="UTC")
        assert changed.status_code == (303 if role in MANAGES else 403), role
        for each in ("top-ups", "grants", "limit"):
            sent = await browser.post(f"{path}/{each}", once="1" * 32, amount="10")
            assert sent.status_code == 403, "only operators book credit"
        if role in READS:
            page = await browser.get(path)
            assert "top-up-form" not in page.text
            assert ("how-to-pay" in page.text) == (role in {Role.OWNER, Role.BILLING})
        for each in ("", "/journal", "/prices", "/customer"):
            assert (await browser.get(f"/o/{world.birch.id}/billing{each}")).status_code == 404
        theirs = await browser.post(f"/o/{world.birch.id}/billing/customer", name="Mine", time_zone="UTC")
        assert theirs.status_code == 404


async def test_after_a_booking_one_stays_on_this_site(quick_console):
    browser = quick_console.as_operator()
    path = f"/o/{quick_console.ash.id}/billing/limit"
    kept = await browser.post(path, amount="1", back="/console/operator/organisations/x")
    assert kept.headers["location"] == "/console/operator/organisations/x"
    away = await browser.post(path, amount="2", back="https://evil.example/")
    assert away.headers["location"] == "/console"
