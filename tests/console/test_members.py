"""Members on their pages: invited, changed, removed; by whom."""

import re

import pytest

from gateway.accounts.access import OPERATOR
from gateway.accounts.api_keys import create_key, find_key
from gateway.accounts.members import create_service_account
from gateway.accounts.roles import Permission, Role
from gateway.accounts.terms import KeyTerms
from gateway.accounts.workspaces import default_workspace_of
from gateway.console.member_forms import ABILITIES, ROLES
from gateway.console.table import PAGE_ROWS
from tests.accounts_world import PEPPERS, TIERS
from tests.console.queries import counted
from tests.console.world import text_of
from tests.people_world import PASSWORD

MANAGES = {Role.OWNER, Role.ADMIN}


async def invited(browser, console, **fields):
    """The path of the link that the form answers, without scripts."""
    answer = await browser.post(f"/o/{console.ash.id}/members/invitations", **fields)
    assert answer.status_code == 200, text_of(answer)
    assert "only this once" in text_of(answer)
    return re.search(r"http://gateway/console(/links/[0-9a-f]+)", answer.text)[1]


def owned_key(console, name, workspace, owner):
    """The id of a key of this user's in ash."""
    accounts = console.accounts
    options = {"peppers": PEPPERS, "ids": accounts.ids, "known_tiers": TIERS, "owner": owner}
    return accounts.do(create_key, workspace, KeyTerms(name), within=console.ash.id, **options).id


async def test_somebody_is_invited_comes_in_is_changed_and_leaves(console):
    admin = console.as_role("admin")
    path = f"/o/{console.ash.id}/members"
    link = await invited(admin, console, email="grace@example.com", role="developer")
    page = text_of(await admin.get(f"{path}/invitations"))
    assert "grace@example.com developer the organisation" in page
    guest = console.browser()
    used = await guest.post(link, name="Grace Hopper", password=PASSWORD)
    assert used.status_code == 303
    listed = await admin.get(path)
    assert "Grace Hopper grace@example.com developer" in text_of(listed)
    assert "No invitation is open" in text_of(await admin.get(f"{path}/invitations"))
    grace = re.search(r'/members/([0-9a-f]{32})">Grace Hopper', listed.text)[1]
    home = console.ash.see(default_workspace_of)
    key = owned_key(console, "compiler", home, grace)
    one = text_of(await admin.get(f"{path}/{grace}"))
    assert "1 API key of theirs" in one
    assert "compiler" in one
    assert (await admin.post(f"{path}/{grace}/role", role="viewer")).status_code == 303
    assert "Grace Hopper grace@example.com viewer" in text_of(await admin.get(path))
    left = await admin.post(f"{path}/{grace}/remove", keys="revoke")
    assert left.headers["location"] == f"/console{path}"
    assert "1 key of theirs is revoked." in admin.notice
    assert "Grace" not in text_of(await admin.get(path)).split("State")[1]
    assert console.accounts.see(find_key, key, within=None).revoked_ms is not None


async def test_keys_go_on_where_the_box_is_empty(quick_console):
    admin, accounts = quick_console.as_role("admin"), quick_console.accounts
    ash = quick_console.ash
    user = quick_console.user("grace", ash, "developer")
    key = owned_key(quick_console, "nightly", ash.see(default_workspace_of), user)
    await admin.post(f"/o/{ash.id}/members/{user}/remove")
    assert "Their keys go on." in admin.notice
    assert accounts.see(find_key, key, within=None).revoked_ms is None


async def test_a_role_in_one_workspace_is_given_and_ended(console):
    admin, ash = console.as_role("admin"), console.ash
    workspace = ash.new("workspace_id")
    user = console.user("wanda", ash, "viewer")
    path = f"/o/{ash.id}/members/{user}"
    assert (await admin.post(f"{path}/workspaces", workspace=workspace, role="admin")).status_code == 303
    name = "ash workspace_id 0: admin"
    assert name in text_of(await admin.get(f"/o/{ash.id}/members"))
    wanda = console.browser(user)
    link = await invited(wanda, console, email="eve@example.com", role="viewer", workspace=workspace)
    assert link
    beyond = await wanda.post(f"/o/{ash.id}/members/invitations", email="eve@example.com", role="viewer")
    assert beyond.status_code == 403
    ended = await admin.post(f"{path}/workspaces/{workspace}/remove", keys="revoke")
    assert ended.headers["location"] == f"/console{path}"
    assert "No role in a single workspace." in text_of(await admin.get(path))


async def test_an_invitation_is_withdrawn(quick_console):
    admin = quick_console.as_role("admin")
    link = await invited(admin, quick_console, email="eve@example.com", role="viewer")
    path = f"/o/{quick_console.ash.id}/members/invitations"
    withdraw = re.search(r'action="/console([^"]+/withdraw)"', (await admin.get(path)).text)[1]
    assert (await admin.post(withdraw)).status_code == 303
    assert (await quick_console.browser().get(link)).status_code == 404
    assert (await admin.post(withdraw)).status_code == 404


async def test_the_last_owner_stays(quick_console):
    browser = quick_console.browser(user := quick_console.user("ada", quick_console.ash, "owner"))
    path = f"/o/{quick_console.ash.id}/members/{user}"
    for asked, fields in (("role", {"role": "viewer"}), ("remove", {})):
        refused = await browser.post(f"{path}/{asked}", **fields)
        assert (refused.status_code, "owner" in text_of(refused)) == (409, True)
    quick_console.user("bea", quick_console.ash, "owner")
    gone = await browser.post(f"{path}/remove")
    assert (gone.status_code, gone.headers["location"]) == (303, "/console")


async def test_only_owners_touch_owners(quick_console):
    user = quick_console.user("ada", quick_console.ash, "owner")
    quick_console.user("bea", quick_console.ash, "owner")
    admin = quick_console.as_role("admin")
    path = f"/o/{quick_console.ash.id}/members"
    page = await admin.get(f"{path}/{user}")
    assert 'id="role-form"' not in page.text
    assert "remove-form" not in page.text
    assert "owner:" not in text_of(await admin.get(path)).split("Invite to")[1]
    assert (await admin.post(f"{path}/{user}/role", role="viewer")).status_code == 403
    assert (await admin.post(f"{path}/{user}/remove")).status_code == 403
    assert (await admin.post(f"{path}/invitations", email="eve@example.com", role="owner")).status_code == 403


async def test_service_accounts_are_made(quick_console):
    admin = quick_console.as_role("admin")
    path = f"/o/{quick_console.ash.id}/members"
    assert (await admin.post(f"{path}/service-accounts", name="Importer", role="developer")).status_code == 303
    listed = await admin.get(path)
    assert "Importer service account" in text_of(listed)
    user = re.search(r'/members/([0-9a-f]{32})">Importer', listed.text)[1]
    assert "cannot log in" in text_of(await admin.get(f"{path}/{user}"))
    assert (await admin.post(f"{path}/service-accounts", name="Owner", role="owner")).status_code == 409


async def test_operators_look_after_accounts(quick_console):
    ash = quick_console.ash
    user = quick_console.user("ada", ash, "owner", password=PASSWORD)
    ada = quick_console.browser(user)
    operator = quick_console.as_operator()
    path = f"/o/{ash.id}/members/{user}"
    made = await operator.post(f"{path}/password-link")
    link = re.search(r"http://gateway/console(/links/[0-9a-f]+)", made.text)[1]
    assert "another password" in text_of(await quick_console.browser().get(link))
    assert (await operator.post(f"{path}/disable", keys="revoke")).status_code == 303
    assert (await ada.get(f"/o/{ash.id}/members")).headers["location"].startswith("/console/login")
    assert "Enable the account" in text_of(await operator.get(path))
    assert (await operator.post(f"{path}/enable")).status_code == 303
    log = text_of(await operator.get(f"/o/{ash.id}/audit?target={user}")).split("Changes")[1]
    for action in ("user.password_link", "user.disable", "user.enable"):
        assert action in log, "the organisation reads what an operator did"


async def test_what_one_may_not_do_is_neither_shown_nor_possible(quick_console):
    world = quick_console
    ash, path = world.ash, f"/o/{world.ash.id}/members"
    workspace, theirs = ash.new("workspace_id"), world.birch.new("user_id")
    for role in Role:
        browser, user = world.as_role(role.value), ash.new("user_id")
        may = role in MANAGES
        page = await browser.get(path)
        assert page.status_code == 200
        assert ("invite-form" in page.text, "service-form" in page.text) == (may, may), role
        assert ('id="role-form"' in (await browser.get(f"{path}/{user}")).text) == may
        assert (await browser.get(f"{path}/roles")).status_code == 200
        assert (await browser.get(f"{path}/invitations")).status_code == (200 if may else 403)
        expected = 303 if may else 403
        sent = await browser.post(f"{path}/invitations", email=f"{role}@example.org", role="viewer")
        assert sent.status_code == (200 if may else 403), role
        for asked, fields in (
            ("service-accounts", {"name": f"s {role}", "role": "viewer"}),
            (f"{user}/role", {"role": "developer"}),
            (f"{user}/workspaces", {"workspace": workspace, "role": "viewer"}),
            (f"{user}/workspaces/{workspace}/remove", {}),
            (f"{user}/remove", {}),
        ):
            assert (await browser.post(f"{path}/{asked}", **fields)).status_code == expected, (role, asked)
        other = ash.new("user_id")
        for asked in ("password-link", "disable", "enable"):
            assert (await browser.post(f"{path}/{other}/{asked}")).status_code == 403, (role, asked)
        assert (await browser.get(f"{path}/{theirs}")).status_code == 404
        if may:
            for asked, fields in (("role", {"role": "viewer"}), ("remove", {})):
                assert (await browser.post(f"{path}/{theirs}/{asked}", **fields)).status_code == 404
            foreign = world.birch.new("workspace_id")
            given = await browser.post(f"{path}/{other}/workspaces", workspace=foreign, role="viewer")
            assert given.status_code == 404
    operator = world.as_operator()
    for asked, fields in (("role", {"role": "viewer"}), ("disable", {}), ("password-link", {})):
        assert (await operator.post(f"{path}/{theirs}/{asked}", **fields)).status_code == 404, "not of this place"


async def test_a_full_table_costs_a_handful_of_queries(console):
    accounts = console.accounts
    for number in range(PAGE_ROWS + 1):
        accounts.do(
            create_service_account, console.ash.id, f"s{number}", Role.VIEWER, access=OPERATOR, ids=accounts.ids
        )
    browser = console.as_role("admin")
    path = f"/o/{console.ash.id}/members"
    with counted(accounts.database) as statements:
        page = await browser.get(path)
    assert f"{PAGE_ROWS + 2} members" in text_of(page)
    assert len(statements) <= 12, statements
    exported = await browser.get(f"{path}?format=csv")
    assert len(exported.text.splitlines()) == PAGE_ROWS + 3


@pytest.mark.parametrize("told", [ABILITIES, ROLES])
def test_every_role_and_permission_is_explained(told):
    assert list(told) == list(Permission if told is ABILITIES else Role)
