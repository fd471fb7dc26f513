"""API keys on their pages: made and shown once, changed, rotated, revoked; by whom."""

import re
from urllib.parse import unquote

import pytest

from billing.models import KeyLastUsed
from gateway.accounts.access import OPERATOR
from gateway.accounts.api_keys import list_keys
from gateway.accounts.limits import Subject, SubjectKind, list_limits
from gateway.accounts.members import create_service_account
from gateway.accounts.roles import Role
from gateway.accounts.trail import list_audit
from gateway.accounts.workspaces import default_workspace_of
from gateway.console.key_forms import KeyForm
from gateway.console.key_rows import KeyState, key_state
from tests.accounts_world import AccountsWorld
from tests.console.queries import counted
from tests.console.usage_world import Usage
from tests.console.world import text_of

DAY_MS = 86_400_000
MANAGE = {Role.OWNER, Role.ADMIN}
CREATE = {*MANAGE, Role.DEVELOPER}
SEE = {*CREATE, Role.VIEWER}
SECRET = re.compile(r"tmt_\w{49}")
SCRIPTED = {"hx-request": "true"}
PLAIN = {"scopes": ["inference", "usage:read"]}


def keys_of(console, tenant=None):
    return console.accounts.see(list_keys, within=(tenant or console.ash).id)


def named(console, name):
    [found] = [each for each in keys_of(console) if each.name == name]
    return found


def home_of(console, tenant=None):
    return (tenant or console.ash).see(default_workspace_of)


async def knows(console, secret):
    """Whether the API takes this secret."""
    answer = await console.world.client.get("/v1/limits", headers={"authorization": f"Bearer {secret}"})
    return answer.status_code == 200


async def test_a_key_is_made_and_shown_once(console):
    browser = console.as_role("owner")
    path = f"/o/{console.ash.id}/keys"
    sent = {
        "name": "website",
        "workspace": home_of(console),
        "scopes": ["inference", "usage:read"],
        "tiers": "auto",
        "networks": "192.0.2.0/24, 10.0.0.0/8",
        "expires_on": "2023-12-01",
        "requests_per_minute": "1 200",
        "spend_per_month": "12.50",
    }
    answer = await browser.post(path, **sent)
    [secret] = set(SECRET.findall(answer.text))
    assert answer.headers["cache-control"] == "no-store"
    assert "shown only this once" in text_of(answer)
    assert secret not in unquote(str(browser.client.cookies)), "no notice carries it"
    key = named(console, "website")
    assert (key.name, key.scopes, key.tiers) == ("website", ("inference", "usage:read"), ("auto",))
    assert key.networks == ("10.0.0.0/8", "192.0.2.0/24")
    assert key.expires_ms == 1_701_475_200_000, "to the end of 1 December, UTC"
    limits = console.accounts.see(list_limits, Subject(SubjectKind.KEY, key.id), within=None)
    assert {(each.kind, each.value, each.hard) for each in limits} == {
        ("requests_per_minute", 1200, True),
        ("spend_per_month", 12_500_000_000, True),
    }
    assert await knows(console, secret)
    shown = [await browser.get(path), await browser.get(f"{path}/{key.id}"), await browser.get(f"{path}?format=csv")]
    assert all(secret not in page.text for page in shown)
    page = text_of(shown[0])
    assert re.search(rf"website tmt_{key.id}_…{key.hint} active default you inference, usage:read only auto", page), (
        page
    )
    entries = console.accounts.see(list_audit, within=console.ash.id)
    assert secret not in repr([(each.before, each.after) for each in entries])
    again = await browser.post(path, **sent)
    assert (again.status_code, "rotate it to see a new secret" in text_of(again)) == (409, True), "sent twice"


async def test_by_script_the_secret_takes_the_place_of_the_form(quick_console):
    browser = quick_console.as_role("owner")
    browser.client.headers.update(SCRIPTED)
    path = f"/o/{quick_console.ash.id}/keys"
    answer = await browser.post(path, name="website", workspace=home_of(quick_console), **PLAIN)
    assert answer.headers["hx-retarget"] == "#create-form"
    assert "<html" not in answer.text
    [secret] = set(SECRET.findall(answer.text))
    assert f"Authorization: Bearer {secret}" in answer.text.replace("&#34;", '"')
    wrong = await browser.post(path, name="other", workspace=home_of(quick_console), spend_per_day="much", **PLAIN)
    assert (wrong.status_code, 'data-param="spend_per_day"' in wrong.text) == (422, True)
    assert "hx-retarget" not in wrong.headers
    assert not SECRET.search(wrong.text)
    assert "other" not in {each.name for each in keys_of(quick_console)}, "nothing is left of what was refused"


async def test_a_key_is_changed_rotated_and_revoked(console):
    browser = console.as_role("developer")
    path = f"/o/{console.ash.id}/keys"
    made = await browser.post(path, name="import", workspace=home_of(console), **PLAIN)
    [old] = set(SECRET.findall(made.text))
    key_id = named(console, "import").id
    page = f"{path}/{key_id}"
    changed = await browser.post(page, name="nightly import", scopes="inference", expires_on="2023-11-20")
    assert changed.status_code == 303
    assert named(console, "nightly import").scopes == ("inference",)
    assert "nightly import expiring" in text_of(await browser.get(page))
    rotated = await browser.post(f"{page}/rotate", overlap_s="3600")
    [new] = set(SECRET.findall(rotated.text))
    assert new[:14] == old[:14], "the id stays"
    assert [await knows(console, each) for each in (old, new)] == [True, True]
    assert "rotating" in text_of(await browser.get(page))
    twice = await browser.post(f"{page}/rotate", overlap_s="3600")
    assert (twice.status_code, "under way" in text_of(twice)) == (409, True)
    newest = SECRET.search((await browser.post(f"{page}/rotate", overlap_s="0")).text).group()
    assert [await knows(console, each) for each in (old, new, newest)] == [False, False, True]
    revoked = await browser.post(f"{page}/revoke")
    assert revoked.status_code == 303
    assert not await knows(console, newest)
    shown = text_of(await browser.get(page))
    assert "nightly import revoked" in shown
    assert "Rotate" not in shown
    assert key_id not in text_of(await browser.get(path)), "hidden"
    assert key_id in text_of(await browser.get(f"{path}?revoked=true"))


async def test_what_each_role_may_do(quick_console):
    path = f"/o/{quick_console.ash.id}/keys"
    theirs = quick_console.ash.new("key_id")
    for role in Role:
        browser = quick_console.as_role(role.value)
        page = await browser.get(path)
        assert page.status_code == (200 if role in SEE else 403), role
        assert ("New key" in text_of(page)) == (role in CREATE), role
        made = await browser.post(path, name=f"by {role.value}", workspace=home_of(quick_console), **PLAIN)
        assert made.status_code == (200 if role in CREATE else 403), role
        one = await browser.get(f"{path}/{theirs}")
        assert one.status_code == (200 if role in SEE else 403), role
        assert ("Revoke" in text_of(one)) == (role in MANAGE), role
        expected = 303 if role in MANAGE else 403
        assert (await browser.post(f"{path}/{theirs}", name="mine", **PLAIN)).status_code == expected, role
        rotated = await browser.post(f"{path}/{theirs}/rotate", overlap_s="0")
        assert rotated.status_code == (200 if role in MANAGE else 403), role
        if role in CREATE:
            own = named(quick_console, f"by {role.value}").id
            assert (await browser.post(f"{path}/{own}/revoke")).status_code == 303, role
        assert (await browser.post(f"{path}/{quick_console.ash.new('key_id')}/revoke")).status_code == expected, role


async def test_nobody_gives_himself_more_than_his_role(quick_console):
    ash, accounts = quick_console.ash, quick_console.accounts
    path = f"/o/{ash.id}/keys"
    workspace = ash.new("workspace_id")
    lead = quick_console.browser(quick_console.user("lead", ash, "admin", workspace=workspace))
    developer, owner = quick_console.as_role("developer"), quick_console.as_role("owner")
    operator = quick_console.as_operator()
    for browser, home in ((lead, workspace), (developer, home_of(quick_console))):
        assert 'value="admin:write"' not in (await browser.get(path)).text
        for scope in ("admin:read", "admin:write", "operator"):
            made = await browser.post(path, name=scope, workspace=home, scopes=scope)
            assert (made.status_code, SECRET.search(made.text)) == (403, None), scope
    assert (await owner.post(path, name="o", workspace=workspace, scopes="operator")).status_code == 403
    made = await owner.post(path, name="robot", workspace=workspace, scopes="admin:write")
    assert made.status_code == 200
    robot = named(quick_console, "robot").id
    for answer in (
        await lead.post(f"{path}/{robot}/rotate", overlap_s="0"),
        await developer.post(path, name="for them", workspace=home_of(quick_console), owner="nobody", **PLAIN),
        await lead.post(path, name="elsewhere", workspace=home_of(quick_console), **PLAIN),
    ):
        assert (answer.status_code, SECRET.search(answer.text)) == (403, None)
    own = accounts.key("theirs", workspace=workspace, within=ash.id).id
    assert (await lead.post(f"{path}/{own}", name="x", scopes="admin:read")).status_code == 403
    both = await owner.post(path, name="both", workspace=workspace, scopes=["inference", "admin:read"])
    assert (both.status_code, "make two" in text_of(both)) == (422, True)
    assert (await operator.post(path, name="all", workspace=workspace, scopes="operator")).status_code == 200
    assert named(quick_console, "all").owner is None, "operators who only look in own nothing"


async def test_another_organisations_keys_do_not_exist(quick_console):
    browser = quick_console.as_role("owner")
    ash, birch = quick_console.ash, quick_console.birch
    theirs = birch.new("key_id")
    path = f"/o/{ash.id}/keys"
    answers = [
        await browser.get(f"{path}/{theirs}"),
        await browser.get(f"/o/{birch.id}/keys"),
        await browser.post(f"{path}/{theirs}", name="mine", **PLAIN),
        await browser.post(f"{path}/{theirs}/rotate", overlap_s="0"),
        await browser.post(f"{path}/{theirs}/revoke"),
        await browser.post(path, name="mine", workspace=home_of(quick_console, birch), **PLAIN),
    ]
    assert [each.status_code for each in answers] == [404] * len(answers)
    lead = quick_console.browser(
        quick_console.user("lead", ash, "admin", workspace=ash.new("workspace_id")),
    )
    inside = ash.new("key_id")  # of the default workspace
    assert (await lead.get(f"{path}/{inside}")).status_code == 404
    assert (await lead.post(f"{path}/{inside}/revoke")).status_code == 404
    assert "0 keys" in text_of(await lead.get(path))


async def test_keys_of_service_accounts(quick_console):
    ash, accounts = quick_console.ash, quick_console.accounts
    robot = accounts.do(create_service_account, ash.id, "deploy", Role.DEVELOPER, access=OPERATOR, ids=accounts.ids).id
    browser = quick_console.as_role("admin")
    path = f"/o/{ash.id}/keys"
    assert "deploy (service account)" in text_of(await browser.get(path))
    for owner, expected in ((robot, robot), ("nobody", None)):
        made = await browser.post(path, name=owner, workspace=home_of(quick_console), owner=owner, **PLAIN)
        assert made.status_code == 200
        assert named(quick_console, owner).owner == expected
    stranger = quick_console.user("eve", quick_console.birch, "owner")
    wrong = await browser.post(path, name="eve", workspace=home_of(quick_console), owner=stranger, **PLAIN)
    assert wrong.status_code == 422


async def test_the_page_of_a_key_tells_of_its_usage(console):
    usage = Usage(console, "Europe/Paris")
    workspace, key_id = usage.workspace("web")
    events = usage.store(
        *(usage.event(ago_ms=days * DAY_MS, workspace=workspace, key_id=key_id) for days in (0, 3, 3, 29, 40)),
        usage.event(workspace=workspace, key_id="another"),
    )
    spent = sum(each.cost_nano for each in events[:4])
    browser = console.as_role("viewer")
    page = await browser.get(f"/o/{console.ash.id}/keys/{key_id}")
    assert f"0.{spent:09d}".rstrip("0") in page.text.replace("\u202f", "")
    text = text_of(page)
    assert "Requests 4" in text
    assert "3 days" in text
    assert "What was done to it" not in text, "viewers do not read the audit log"
    lines = (await browser.get(f"/o/{console.ash.id}/keys/{key_id}?format=csv")).text.splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [
        ["2023-11-14", "1"],
        ["2023-11-11", "2"],
        ["2023-10-17", "1"],  # 00:13 in Paris
    ]
    owner = text_of(await console.as_role("owner").get(f"/o/{console.ash.id}/keys/{key_id}"))
    assert "What was done to it Audit log api_key.create by Ada" in owner


async def test_pages_of_keys_ask_a_handful_of_questions(console):
    browser = console.as_role("owner")
    path = f"/o/{console.ash.id}/keys"
    counts = []
    for more in (0, 60):
        for _ in range(more):
            console.ash.new("key_id")
        with counted(console.accounts.database) as statements:
            assert (await browser.get(path)).status_code == 200
        counts.append(len(statements))
    assert counts[0] == counts[1] <= 12
    assert "Page 1 of 2" in text_of(await browser.get(path))
    with counted(console.accounts.database) as statements:
        assert (await browser.get(f"{path}/{keys_of(console)[0].id}")).status_code == 200
    assert len(statements) <= 20


async def test_the_table_sorts_filters_and_exports(quick_console):
    accounts, ash = quick_console.accounts, quick_console.ash
    used = named(quick_console, "ash usage:read").id
    with accounts.database.unit_of_work() as session:
        session.add(KeyLastUsed(key_id=used, last_used_ms=accounts.clock.now_ms() - 7_200_000))
    browser = quick_console.as_role("viewer")
    path = f"/o/{ash.id}/keys"
    first = text_of(await browser.get(f"{path}?sort=-last_used_ms")).partition("Created")[2]
    assert re.match(r" ash usage:read tmt_\S+ active default nobody usage:read never 2 h ago 2023-11-14", first), first
    assert "1 of 4 keys" in text_of(await browser.get(f"{path}?q=usage:read"))
    lines = (await browser.get(f"{path}?format=csv&sort=name&revoked=true")).text.splitlines()
    assert lines[0].startswith("id,name,state,hidden,workspace,owner,scopes,tiers,networks,expires_ms,last_used_ms")
    assert len(lines) == 5


def test_states_of_keys(sqlite_database):
    world = AccountsWorld(sqlite_database)
    now_ms = world.clock.now_ms()
    made = world.key("k", expires_ms=now_ms + 10 * DAY_MS)
    [row] = world.see(list_keys, within=None)
    assert key_state(row, (), now_ms) is KeyState.ACTIVE
    assert key_state(row, (), now_ms + 4 * DAY_MS) is KeyState.EXPIRING
    assert key_state(row, (), now_ms + 10 * DAY_MS) is KeyState.EXPIRED
    assert key_state(row, {row.workspace_id}, now_ms) is KeyState.ARCHIVED
    assert made.id == row.id


@pytest.mark.parametrize(("zone", "ends_ms"), [("UTC", 1_711_929_600_000), ("Europe/Rome", 1_711_922_400_000)])
def test_a_key_is_valid_to_the_end_of_its_last_day(zone, ends_ms):
    form = KeyForm(name="k", expires_on="2024-03-31")  # Rome has 23 hours on this day
    assert form.terms(zone).expires_ms == ends_ms
    assert form.terms(zone, kept_ms=ends_ms - 5_000).expires_ms == ends_ms - 5_000, "the same day does not move it"
    assert form.terms(zone, kept_ms=ends_ms + 5_000).expires_ms == ends_ms
