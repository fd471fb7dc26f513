"""The way in and out, and what stands around every page."""

import hashlib
import re
from importlib import resources

import pytest

from gateway.accounts.invitations import first_login_link, forgotten_password
from gateway.console.desk import SESSION_COOKIE
from gateway.console.entrance import own_page
from tests.console.world import HERE, text_of
from tests.people_world import PASSWORD


async def test_the_door_opens_for_the_right_password_only(quick_console):
    quick_console.user("ada", quick_console.ash, "owner", password=PASSWORD)
    browser = quick_console.browser()
    refused = await browser.post("/login", email="ada@example.com", password="not this one at all")
    assert refused.status_code == 401
    assert "wrong" in text_of(refused)
    quick_console.accounts.clock.advance(60)
    let_in = await browser.post("/login", email="ada@example.com", password=PASSWORD, next="/console/profile")
    assert (let_in.status_code, let_in.headers["location"]) == (303, "/console/profile")
    cookie = let_in.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/console" in cookie
    assert "Secure" not in cookie, "over plain HTTP a browser would drop it"
    page = await browser.get("", follow_redirects=False)
    assert page.headers["location"] == f"/console/o/{quick_console.ash.id}"


async def test_behind_tls_the_cookie_is_secure(quick_console):
    quick_console.user("ada", quick_console.ash, "owner", password=PASSWORD)
    browser = quick_console.browser()
    browser.client.base_url = "https://gateway"
    let_in = await browser.post("/login", email="ada@example.com", password=PASSWORD)
    assert "Secure" in let_in.headers["set-cookie"]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/console/o/x/usage", "/console/o/x/usage"),
        ("/console", "/console"),
        ("//evil.example", "/console"),
        ("https://evil.example/console/", "/console"),
        ("/console/\\evil", "/console"),
        ("/consolefake", "/console"),
        ("/console/\r\nset-cookie: a=b", "/console"),
        ("", "/console"),
    ],
)
def test_after_the_log_in_one_stays_on_this_site(path, target):
    assert own_page(path) == target


async def test_without_a_session_every_page_leads_to_the_log_in(quick_console):
    browser = quick_console.browser()
    page = await browser.get(f"/o/{quick_console.ash.id}/workspaces")
    assert page.status_code == 303
    assert page.headers["location"].startswith("/console/login?next=%2Fconsole%2Fo%2F")
    partial = await browser.get(f"/o/{quick_console.ash.id}/workspaces", headers={"hx-request": "true"})
    assert (partial.status_code, partial.headers["hx-redirect"]) == (401, "/console/login")


async def test_a_form_without_the_sessions_token_does_nothing(quick_console):
    browser = quick_console.as_role("owner")
    path = f"/o/{quick_console.ash.id}/workspaces"
    assert (await browser.post(path, csrf=False, name="stolen")).status_code == 403
    browser.client.headers["origin"] = "https://evil.example"
    assert (await browser.post(path, name="stolen")).status_code == 403
    del browser.client.headers["origin"]
    assert "stolen" not in text_of(await browser.get(path))


async def test_a_login_form_on_another_site_is_refused(quick_console):
    quick_console.user("ada", quick_console.ash, "owner", password=PASSWORD)
    browser = quick_console.browser()
    browser.client.headers["origin"] = "https://evil.example"
    assert (await browser.post("/login", email="ada@example.com", password=PASSWORD)).status_code == 403


async def test_log_out_ends_the_session_itself(quick_console):
    browser = quick_console.as_role("viewer")
    kept = browser.client.cookies.get(SESSION_COOKIE)
    assert (await browser.post("/logout")).status_code == 303
    browser.client.cookies.set(SESSION_COOKIE, kept, path="/console")
    assert (await browser.get("")).headers["location"].startswith("/console/login")


async def test_the_first_link_makes_an_operator_once(quick_console):
    accounts = quick_console.accounts
    link = accounts.do(first_login_link, accounts.default.organisation, ids=accounts.ids)
    browser = quick_console.browser()
    path = f"/links/{link.token.get_secret_value()}"
    assert "operator" in text_of(await browser.get(path))
    weak = await browser.post(path, email="ada@example.com", password="short")
    assert weak.status_code == 422
    used = await browser.post(path, email="ada@example.com", name="Ada", password=PASSWORD)
    assert used.status_code == 303
    assert (await browser.get("")).headers["location"] == f"/console/o/{accounts.default.organisation}"
    again = await quick_console.browser().post(path, email="eve@example.com", password=PASSWORD)
    assert again.status_code == 404


async def test_another_password_by_link_ends_the_old_one(quick_console):
    accounts = quick_console.accounts
    quick_console.user("ada", quick_console.ash, "owner", password="the old one, forgotten")
    link = accounts.do_plain(forgotten_password, "ada@example.com", HERE)
    browser = quick_console.browser()
    path = f"/links/{link.token.get_secret_value()}"
    assert "another password" in text_of(await browser.get(path))
    assert (await browser.post(path, password=PASSWORD)).status_code == 303
    fresh = quick_console.browser()
    refused = await fresh.post("/login", email="ada@example.com", password="the old one, forgotten")
    assert refused.status_code == 401


async def test_without_mail_nobody_is_promised_a_letter(quick_console):
    browser = quick_console.browser()
    assert "sends no mail" in text_of(await browser.get("/forgotten"))
    assert (await browser.post("/forgotten", email="ada@example.com")).status_code == 403


async def test_pages_run_nothing_but_our_own_files(quick_console):
    page = await quick_console.as_role("owner").get(f"/o/{quick_console.ash.id}/workspaces")
    policy = page.headers["content-security-policy"]
    assert "'unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|style=", page.text)


async def test_assets_change_their_name_with_their_content(quick_console):
    browser = quick_console.browser()
    page = await browser.get("/login")
    links = re.findall(r'/console(/assets/[^"]+)"', page.text)
    assert links
    for link in links:
        found = await browser.get(link)
        assert found.status_code == 200
        assert "immutable" in found.headers["cache-control"]
        assert found.headers["x-content-type-options"] == "nosniff"
        stale = await browser.get(link.split("?")[0] + "?v=other")
        assert "immutable" not in stale.headers["cache-control"]
    assert (await browser.get("/assets/nosuch.js")).status_code == 404


def test_vendored_files_are_those_of_the_list():
    folder = resources.files("gateway.console") / "assets"
    listed = dict(
        re.findall(r"^\| (\S+\.js) \|.*\| ([0-9a-f]{64}) \|$", (folder / "README.md").read_text(), re.MULTILINE)
    )
    found = {
        entry.name: hashlib.sha256(entry.read_bytes()).hexdigest()
        for entry in (folder / "vendor").iterdir()
        if entry.name.endswith(".js")
    }
    assert found == listed
    for name in found:
        assert (folder / "vendor" / f"{name.split('.')[0]}.LICENSE").is_file()


async def test_errors_are_pages(quick_console):
    browser = quick_console.as_role("owner")
    missing = await browser.get(f"/o/{'0' * 32}/workspaces")
    assert missing.status_code == 404
    assert "not for you" in text_of(missing)
    foreign = await browser.get(f"/o/{quick_console.birch.id}/workspaces")
    assert (foreign.status_code, text_of(foreign).split("Request")[0]) == (404, text_of(missing).split("Request")[0])


async def test_a_page_that_is_not_there_is_a_page_too(quick_console):
    missing = await quick_console.as_role("owner").get("/no/such/page")
    assert missing.status_code == 404
    assert "no/such/page" in text_of(missing)
    nobody = await quick_console.browser().get("/no/such/page")
    assert nobody.headers["location"].startswith("/console/login")
