"""Plans on the operators' pages: made, changed, compared with the file."""

import re

from gateway.accounts.limits import Subject, SubjectKind, list_limits
from gateway.accounts.plans import find_plan
from gateway.accounts.roles import Role
from tests.console.queries import counted
from tests.console.world import text_of

PATH = "/operator/plans"
NANO = 10**9


async def test_a_plan_is_made_and_given_limits(console):
    browser = console.as_operator()
    made = await browser.post(PATH, name="big / fast", credit="20.00", weight="4", like="development")
    assert (made.status_code, made.headers["location"]) == (303, f"/console{PATH}/terms?plan=big+%2F+fast")
    one = f"{PATH}/terms?plan=big+%2F+fast"
    limit = {"plan": "big / fast", "kind": "spend_per_month"}
    assert (await browser.post(f"{PATH}/limits", **limit, value="1 200.50")).status_code == 303
    page = text_of(await browser.get(one))
    assert "Spending per month all together 1 200.50 EUR refuses" in page
    soft = {**limit, "kind": "requests_per_minute", "tier": console.services.catalog.tiers[0].name, "soft": "true"}
    assert (await browser.post(f"{PATH}/limits", **soft, value="600")).status_code == 303
    assert "only tells" in text_of(await browser.get(one))
    assert (await browser.post(f"{PATH}/limits", **{**soft, "tier": "nothing"}, value="600")).status_code == 422
    assert (await browser.post(f"{PATH}/limits", **limit, value="many")).status_code == 422
    assert (await browser.post(f"{PATH}/terms", name="big / fast", credit="5", weight="6")).status_code == 303
    kept = console.accounts.see(find_plan, "big / fast")
    assert (kept.credit_nano, kept.weight, len(kept.limits)) == (5 * NANO, 6, 5), "the limits stay"
    limits = console.accounts.see(list_limits, Subject(SubjectKind.PLAN, "big / fast"), within=None)
    gone = await browser.post(f"{PATH}/limits/{limits[0].id}/remove", plan="big / fast")
    assert gone.status_code == 303
    assert len(console.accounts.see(find_plan, "big / fast").limits) == 4
    listed = text_of(await browser.get(PATH))
    assert "big / fast 0 6 5.00 EUR" in listed
    assert "development differs from the file 3" in listed
    assert (await browser.post(PATH, name="development", weight="1")).status_code == 409


async def test_a_plan_is_taken_from_the_file(console):
    browser = console.as_operator()
    one = f"{PATH}/terms?plan=development"
    page = await browser.get(one)
    assert "says something else" in text_of(page)
    assert re.search(r"<del>[^<]*requests per minute 60[^<]*</del>", page.text)
    assert (await browser.post(f"{PATH}/file", plan="development")).status_code == 303
    assert "It is as in tramontane.toml." in text_of(await browser.get(one))
    assert "differs" not in text_of(await browser.get(PATH))
    log = text_of(await browser.get("/operator/audit?action=plan.change")).split("Changes")[1]
    assert "development" in log
    assert (await browser.post(f"{PATH}/file", plan="nothing")).status_code == 404


async def test_a_change_reaches_every_organisation_on_it(quick_console):
    """Gateways load a principal anew when the generation of its organisation has risen."""
    keeper, home = quick_console.services.keeper, quick_console.ash.id
    before = (await keeper.generations([home])).get(home, 0)
    browser = quick_console.as_operator()
    await browser.post(f"{PATH}/limits", plan="development", kind="concurrency", value="2")
    assert (await keeper.generations([home]))[home] > before


async def test_a_limit_of_something_else_is_not_a_plans(quick_console):
    browser, theirs = quick_console.as_operator(), quick_console.ash.new("limit_id")
    assert (await browser.post(f"{PATH}/limits/{theirs}/remove", plan="development")).status_code == 404
    assert (await browser.get(f"{PATH}/terms?plan=nothing")).status_code == 404


async def test_only_operators_see_plans(quick_console):
    for role in Role:
        browser = quick_console.as_role(role.value)
        for path in (PATH, f"{PATH}?format=csv", f"{PATH}/terms?plan=development"):
            assert (await browser.get(path)).status_code == 403, (role, path)
        for asked, fields in (
            ("", {"name": "mine", "weight": "9"}),
            ("/terms", {"name": "development", "weight": "9"}),
            ("/file", {"plan": "development"}),
            ("/limits", {"plan": "development", "kind": "concurrency", "value": "9"}),
            ("/limits/x/remove", {"plan": "development"}),
        ):
            assert (await browser.post(PATH + asked, **fields)).status_code == 403, (role, asked)


async def test_the_list_costs_a_handful_of_queries(console):
    browser = console.as_operator()
    for number in range(8):
        await browser.post(PATH, name=f"plan {number}", weight="1", like="development")
    with counted(console.accounts.database) as statements:
        page = await browser.get(PATH)
    assert "9 plans" in text_of(page)
    assert len(statements) <= 10, statements
