"""The audit log on its pages: read by whom, filtered, cut into pages, exported."""

import csv
import io
import re

from gateway.accounts.organisations import rename_organisation, suspend_organisation
from gateway.accounts.roles import Role
from gateway.accounts.trail import Actor, Target, record
from gateway.accounts.workspaces import create_workspace
from gateway.console.changes import Difference, differences
from gateway.console.feed import FEED_ROWS
from tests.console.queries import counted
from tests.console.world import text_of

DAY_MS = 86_400_000


def acts_of(response):
    """What the table says, without the filters above it."""
    return text_of(response).split("Changes", 1)[1]


def noted(console, count, *, action="workspace.create", actor=None, organisation=None):
    """So many acts in the log of ash."""
    by = actor or Actor("cli", "ada", "Ada", "192.0.2.9", "r9")
    with console.accounts.database.unit_of_work() as session:
        for number in range(count):
            now_ms = console.accounts.clock.now_ms()
            home = organisation or console.ash.id
            target = Target("workspace", f"w{number}")
            record(session, by, action, target, organisation=home, now_ms=now_ms, after={"name": f"team {number}"})


async def test_acts_are_shown_with_what_they_changed(console):
    accounts, ash = console.accounts, console.ash
    accounts.do(rename_organisation, ash.id, "ash & sons")
    made = accounts.do(create_workspace, ash.id, "Research", ids=accounts.ids)
    browser = console.as_role("admin")
    page = acts_of(await browser.get(f"/o/{ash.id}/audit"))
    assert "r1 Ada cli 127.0.0.1 organisation.rename ash & sons organisation name ash ash & sons" in page
    assert "workspace.create Research workspace" in page
    assert page.index("workspace.create") < page.index("organisation.rename"), "newest first"
    birch = text_of(await browser.get(f"/o/{ash.id}/audit?target={console.birch.id}"))
    assert "Nothing here matches" in birch
    found = text_of(await browser.get(f"/o/{ash.id}/audit?target={made.id}&action=workspace.create&actor=ada"))
    assert "Research" in found
    assert "ash & sons organisation" not in found


async def test_an_address_finds_what_somebody_did_and_what_was_done_to_them(quick_console):
    ash = quick_console.ash
    browser = quick_console.browser(quick_console.user("grace", ash, "owner"))
    await browser.post(f"/o/{ash.id}/workspaces", name="Compilers")
    did = acts_of(await browser.get(f"/o/{ash.id}/audit?actor=grace@example.com"))
    assert "Compilers" in did
    assert "member.add" not in did
    met = acts_of(await browser.get(f"/o/{ash.id}/audit?target=grace@example.com"))
    assert "member.add grace@example.com user role owner" in met


async def test_pages_follow_one_another_without_a_gap(console):
    noted(console, 2 * FEED_ROWS + 3)
    browser = console.as_role("owner")
    path, seen = f"/o/{console.ash.id}/audit?action=workspace.create", []
    while path:
        page = await browser.get(path)
        seen += re.findall(r"<ins>(team \d+)</ins>", page.text)
        older = re.search(r'href="/console([^"]+)" rel="next"', page.text)
        path = older[1].replace("&amp;", "&") if older else None
        assert ("Newest</a>" in page.text) == ("before" in str(page.url))
    assert len(seen) == len(set(seen)) == 2 * FEED_ROWS + 3


async def test_days_are_those_of_the_organisation(quick_console):
    accounts = quick_console.accounts
    noted(quick_console, 1, action="api_key.create")
    accounts.clock.advance(3 * DAY_MS)
    noted(quick_console, 1, action="limit.set")
    browser = quick_console.as_role("owner")
    path = f"/o/{quick_console.ash.id}/audit"
    today = re.search(r'<time[^>]* datetime="([0-9-]{10})', (await browser.get(f"{path}?action=limit.set")).text)[1]
    late = acts_of(await browser.get(f"{path}?since={today}"))
    assert "limit.set" in late
    assert "api_key.create" not in late
    early = acts_of(await browser.get(f"{path}?until={today}&action=api_key.create"))
    assert "api_key.create" in early
    assert (await browser.get(f"{path}?since=yesterday")).status_code == 422


async def test_the_file_has_everything_and_runs_nothing(quick_console):
    noted(quick_console, 3, actor=Actor("user", "u1", "=cmd()"))
    browser = quick_console.as_role("owner")
    answer = await browser.get(f"/o/{quick_console.ash.id}/audit?action=workspace.create&format=csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["after"] for row in rows] == [f'{{"name": "team {number}"}}' for number in (2, 1, 0)]
    assert rows[0]["actor_name"] == "'=cmd()"
    assert "attachment" in answer.headers["content-disposition"]


async def test_who_reads_the_log(quick_console):
    world = quick_console
    noted(world, 1, organisation=world.birch.id, action="birch.secret")
    for role in Role:
        browser = world.as_role(role.value)
        expected = 200 if role in {Role.OWNER, Role.ADMIN} else 403
        page = await browser.get(f"/o/{world.ash.id}/audit")
        assert page.status_code == expected, role
        assert "birch.secret" not in page.text
        assert ("/audit" in (await browser.get(f"/o/{world.ash.id}/workspaces")).text) == (expected == 200)
        assert (await browser.get(f"/o/{world.ash.id}/audit?format=csv")).status_code == expected
        assert (await browser.get(f"/o/{world.birch.id}/audit")).status_code == 404
        assert (await browser.get("/operator/audit")).status_code == 403


async def test_operators_read_all_of_it(console):
    accounts = console.accounts
    browser = console.as_operator()
    accounts.do(suspend_organisation, console.birch.id)
    page = acts_of(await browser.get("/operator/audit"))
    assert "organisation.suspend birch" in page
    assert "organisation.create ash" in page
    one = acts_of(await browser.get("/operator/audit?organisation=birch"))
    assert "organisation.suspend" in one
    assert "organisation.create ash" not in one
    assert (await browser.get("/operator/audit?organisation=nobody")).status_code == 404
    exported = await browser.get("/operator/audit?format=csv&organisation=birch")
    assert console.ash.id not in exported.text


async def test_a_full_page_costs_a_handful_of_queries(console):
    noted(console, FEED_ROWS + 1)
    browser = console.as_role("owner")
    with counted(console.accounts.database) as statements:
        page = await browser.get(f"/o/{console.ash.id}/audit")
    assert page.status_code == 200
    assert len(statements) <= 12, statements


def test_differences_are_told_as_people_read_them():
    before = {"limit_nano": 1_500_000_000, "name": "a", "kind": "spend_per_day", "value": 10**9, "hard": True}
    after = {**before, "limit_nano": 0, "hard": False, "value": 2 * 10**9, "expires_ms": 0}
    assert differences(before, after, "UTC") == [
        Difference("limit", "1.50", "0.00"),
        Difference("value", "1.00", "2.00"),
        Difference("hard", "yes", "no"),
        Difference("expires", "", "1970-01-01 00:00:00"),
    ]
    limit = {"kind": "requests_per_minute", "value": 60, "tier": "mistral-tiny", "hard": False}
    assert differences(None, {"limits": [limit], "note": ""}, "UTC") == [
        Difference("limits", "", "requests per minute 60 (mistral-tiny, soft)")
    ]
