"""All organisations on the operators' pages: found, made, changed, paid in."""

import re

from billing.days import RevenueDay, RevenueMonth, day_start_ms, month_start_ms
from billing.grants import top_up
from gateway.accounts.organisations import create_organisation, suspend_organisation
from gateway.accounts.plans import PlanTerms, put_plan
from gateway.accounts.roles import Role
from gateway.console.table import PAGE_ROWS
from tests.accounts_world import TIERS
from tests.console.queries import counted
from tests.console.world import text_of

PATH = "/operator/organisations"
NANO = 10**9
SUMS = ("failed", "prompt_tokens", "completion_tokens", "cached_tokens", "loss_nano")


def used(console, organisation, *, requests, cost):
    """Today, in two tiers."""
    now_ms = console.accounts.clock.now_ms()
    with console.accounts.database.unit_of_work() as session:
        for tier in ("tiny", "small"):
            for model, start_ms in ((RevenueDay, day_start_ms(now_ms)), (RevenueMonth, month_start_ms(now_ms))):
                same = {"start_ms": start_ms, "tier": tier, "organisation": organisation, **dict.fromkeys(SUMS, 0)}
                session.add(model(**same, requests=requests, cost_nano=cost * NANO))


def named(response):
    """The names in the order of the table."""
    return re.findall(r'<a class="strong" href="[^"]+">([^<]+)</a>', response.text)


async def test_an_organisation_is_made_with_its_first_owner(console):
    browser = console.as_operator()
    made = await browser.post(
        PATH, name="Cedar Labs", plan="development", time_zone="Asia/Tokyo", owner="kana@cedar.example"
    )
    assert "kana@cedar.example" in text_of(made)
    link = re.search(r"http://gateway/console(/links/[0-9a-f]+)", made.text)[1]
    assert "Join Cedar Labs You are invited as owner" in text_of(await console.browser().get(link))
    listed = await browser.get(f"{PATH}?q=cedar")
    assert named(listed) == ["Cedar Labs"]
    assert "development 1.50 EUR 0.00 EUR 0 0" in text_of(listed), "with the first credit of its plan"
    path = re.search(r'href="/console(/operator/organisations/[0-9a-f]{32})"', listed.text)[1]
    assert "Asia/Tokyo" in text_of(await browser.get(path))
    again = await browser.post(PATH, name="Cedar Labs")
    assert (again.status_code, "taken" in text_of(again)) == (409, True)
    alone = await browser.post(PATH, name="Willow", time_zone="UTC")
    assert alone.status_code == 303
    assert alone.headers["location"].startswith(f"/console{PATH}/")


async def test_terms_are_changed_and_written_into_its_own_log(console):
    accounts, ash = console.accounts, console.ash
    accounts.do(put_plan, PlanTerms("business", 0, 5), known_tiers=TIERS, ids=accounts.ids)
    browser, path = console.as_operator(), f"{PATH}/{console.ash.id}"
    once = re.search(r'name="once" value="([0-9a-f]{32})"', (await browser.get(path)).text)[1]
    for asked, fields in (
        ("name", {"name": "Ash & Co"}),
        ("plan", {"plan": "business"}),
        ("suspend", {}),
        ("resume", {}),
    ):
        sent = await browser.post(f"{path}/{asked}", **fields)
        assert (sent.status_code, sent.headers["location"]) == (303, f"/console{path}"), asked
    paid = await browser.post(f"/o/{ash.id}/billing/top-ups", once=once, amount="99.50", back=f"/console{path}")
    assert paid.headers["location"] == f"/console{path}"
    page = text_of(await browser.get(path))
    assert "Ash & Co" in page
    assert "Balance 101.00 EUR" in page
    assert "Plan business" in page
    owner = console.as_role("owner")
    log = text_of(await owner.get(f"/o/{ash.id}/audit")).split("Changes")[1]
    for action in ("organisation.rename", "organisation.change_plan", "organisation.suspend", "credit.top_up"):
        assert action in log, action
    assert (await browser.post(f"{path}/plan", plan="nothing")).status_code == 404


async def test_a_suspended_organisation_says_so(quick_console):
    browser, path = quick_console.as_operator(), f"{PATH}/{quick_console.ash.id}"
    await browser.post(f"{path}/suspend")
    page = text_of(await browser.get(path))
    assert "Resume" in page
    assert "nothing is admitted" in page
    assert named(await browser.get(f"{PATH}?status=suspended")) == ["ash"]


async def test_the_list_is_sorted_searched_and_paged_in_sql(console):
    accounts = console.accounts
    for number in range(PAGE_ROWS + 5):
        accounts.do(create_organisation, f"org {number:03}", ids=accounts.ids)
    used(console, console.birch.id, requests=7, cost=3)
    used(console, console.ash.id, requests=2, cost=4)
    with accounts.database.unit_of_work() as session:
        top_up(session, console.birch.id, 500 * NANO, key="bank 1", clock=accounts.clock)
    accounts.do(suspend_organisation, console.ash.id)
    browser = console.as_operator()
    with counted(accounts.database) as statements:
        first = await browser.get(PATH)
    assert len(statements) <= 13, statements
    assert f"{PAGE_ROWS + 8} organisations" in text_of(first), "with ash, birch and the default one"
    assert named(first)[:3] == ["ash", "birch", "default"]
    assert "birch Open console development 501.50 EUR 6.00 EUR 14 0" in text_of(first)
    second = await browser.get(f"{PATH}?page=2")
    assert named(second) == [f"org {number:03}" for number in range(PAGE_ROWS - 3, PAGE_ROWS + 5)]
    for sort, top in (
        ("-balance_nano", "birch"),
        ("-spent_nano", "ash"),
        ("-requests", "birch"),
        ("-name", f"org {PAGE_ROWS + 4:03}"),
    ):
        with counted(accounts.database) as statements:
            page = await browser.get(f"{PATH}?sort={sort}")
        assert named(page)[0] == top, sort
        assert len(statements) <= 13, statements
    assert named(await browser.get(f"{PATH}?sort=members")), "any of its columns"
    found = await browser.get(f"{PATH}?q=ORG+00")
    assert len(named(found)) == 10
    assert named(await browser.get(f"{PATH}?q={console.ash.id}")) == ["ash"]
    assert "Nothing here matches" in text_of(await browser.get(f"{PATH}?q=100%25"))
    exported = await browser.get(f"{PATH}?format=csv&q=birch")
    assert exported.text.splitlines()[0].startswith("id,status,name,plan,balance_nano")
    assert "6000000000" in exported.text
    assert (await browser.get(f"{PATH}?sort=password_hash")).status_code == 200


async def test_only_operators_see_it(quick_console):
    world = quick_console
    one = f"{PATH}/{world.ash.id}"
    for role in Role:
        browser = world.as_role(role.value)
        for path in ("/operator", PATH, f"{PATH}?format=csv", one):
            assert (await browser.get(path)).status_code == 403, (role, path)
        assert "/console/operator" not in (await browser.get(f"/o/{world.ash.id}/workspaces")).text
        assert (await browser.post(PATH, name="Mine")).status_code == 403
        for asked, fields in (("name", {"name": "x"}), ("plan", {"plan": "x"}), ("suspend", {}), ("resume", {})):
            assert (await browser.post(f"{one}/{asked}", **fields)).status_code == 403, (role, asked)
    operator = world.as_operator()
    assert (await operator.get("/operator")).headers["location"] == f"/console{PATH}"
    assert (await operator.get(f"{PATH}/nobody")).status_code == 404
