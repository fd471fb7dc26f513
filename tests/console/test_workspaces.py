"""Workspaces on their page: made, changed, archived; by whom."""

import pytest

from gateway.accounts.roles import Role
from gateway.accounts.workspaces import create_workspace
from tests.console.world import text_of

MAY_CREATE = {Role.OWNER, Role.ADMIN}


async def test_a_workspace_is_made_changed_and_archived(console):
    browser = console.as_role("admin")
    path = f"/o/{console.ash.id}/workspaces"
    made = await browser.post(path, name="Research", lenient="true")
    assert (made.status_code, made.headers["location"]) == (303, f"/console{path}")
    page = text_of(await browser.get(path))
    assert "The workspace Research is there." in page
    assert "Research lenient" in page
    assert "is there." not in text_of(await browser.get(path)), "told once"
    taken = await browser.post(path, name="Research")
    assert (taken.status_code, "taken" in text_of(taken)) == (409, True)
    workspace = console.ash.new("workspace_id")
    assert (await browser.post(f"{path}/{workspace}", name="Renamed")).status_code == 303
    assert "Renamed as the organisation" in text_of(await browser.get(path))
    assert (await browser.post(f"{path}/{workspace}/archive")).status_code == 303
    assert "Renamed" not in text_of(await browser.get(path))


@pytest.mark.parametrize("role", list(Role))
async def test_what_one_may_not_do_is_neither_shown_nor_possible(quick_console, role):
    browser = quick_console.as_role(role.value)
    path = f"/o/{quick_console.ash.id}/workspaces"
    workspace = quick_console.ash.new("workspace_id")
    page = await browser.get(path)
    assert page.status_code == 200
    assert ("New workspace" in text_of(page)) == (role in MAY_CREATE)
    assert ("Archive" in text_of(page)) == (role in MAY_CREATE)
    expected = 303 if role in MAY_CREATE else 403
    assert (await browser.post(path, name="Mine")).status_code == expected
    assert (await browser.post(f"{path}/{workspace}", name="Other")).status_code == expected
    assert (await browser.post(f"{path}/{workspace}/archive")).status_code == expected


async def test_a_member_of_one_workspace_sees_that_one(quick_console):
    workspace = quick_console.ash.new("workspace_id")
    browser = quick_console.browser(quick_console.user("wanda", quick_console.ash, "developer", workspace=workspace))
    page = text_of(await browser.get(f"/o/{quick_console.ash.id}/workspaces"))
    assert "1 workspace " in page
    assert "default" not in page.split("Created")[1]


async def test_another_organisations_workspace_does_not_exist(quick_console):
    browser = quick_console.as_role("owner")
    theirs = quick_console.birch.new("workspace_id")
    answer = await browser.post(f"/o/{quick_console.ash.id}/workspaces/{theirs}", name="Mine")
    assert answer.status_code == 404


async def test_the_table_sorts_filters_and_exports(quick_console):
    ash, accounts = quick_console.ash, quick_console.accounts
    for name in ("zeta", "alpha", "=cmd()"):
        accounts.do(create_workspace, ash.id, name, ids=accounts.ids)
    browser = quick_console.as_role("viewer")
    path = f"/o/{ash.id}/workspaces"
    by_name = text_of(await browser.get(f"{path}?sort=-name"))
    assert by_name.index("zeta") < by_name.index("alpha")
    found = text_of(await browser.get(f"{path}?q=zet"))
    assert "zeta" in found
    assert "alpha" not in found
    none = text_of(await browser.get(f"{path}?q=nosuch"))
    assert "Nothing here matches" in none
    exported = await browser.get(f"{path}?format=csv&sort=name")
    assert exported.headers["content-type"].startswith("text/csv")
    assert "attachment" in exported.headers["content-disposition"]
    lines = exported.text.splitlines()
    assert lines[0] == "name,mode,keys,created_ms"
    assert lines[1].startswith("'=cmd()"), "no spreadsheet runs it"
