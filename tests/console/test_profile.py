"""Your account: another name, another password, sessions ended."""

import re

from gateway.accounts.sessions import list_sessions
from gateway.console.profile import browser_name
from tests.console.world import text_of

OLD, NEW = "correct horse battery", "staple battery horse"


async def test_the_page_says_who_one_is_and_where_one_belongs(console):
    user = console.user("ada", console.ash, "owner")
    console.user("grace", console.birch, "viewer")
    workspace = console.birch.new("workspace_id")
    page = text_of(await console.browser(user).get("/profile"))
    assert "ada@example.com" in page
    assert "ash owner" in page
    assert "birch" not in page
    wanda = console.browser(console.user("wanda", console.birch, "developer", workspace=workspace))
    page = text_of(await wanda.get("/profile"))
    assert re.search(r"birch birch workspace_id \d+ developer", page), page


async def test_another_name(quick_console):
    browser = quick_console.browser(quick_console.user("ada", quick_console.ash, "viewer"))
    assert (await browser.post("/profile/name", name="Ada Lovelace")).status_code == 303
    page = await browser.get("/profile")
    assert 'value="Ada Lovelace"' in page.text
    assert (await browser.post("/profile/name", name="")).status_code == 422
    assert (await browser.post("/profile/name", name="Ada", csrf=False)).status_code == 403


async def test_another_password_ends_the_other_sessions(quick_console):
    user = quick_console.user("ada", quick_console.ash, "viewer", password=OLD)
    browser, other = quick_console.browser(user), quick_console.browser(user)
    wrong = await browser.post("/profile/password", old_password="wrong horse battery", password=NEW)
    assert (wrong.status_code, "The old password is wrong." in wrong.text) == (422, True), "and not: log in"
    short = await browser.post("/profile/password", old_password=OLD, password="short")
    assert (short.status_code, "12 to 256 characters" in short.text) == (422, True)
    changed = await browser.post("/profile/password", old_password=OLD, password=NEW)
    assert changed.status_code == 303
    assert (await browser.get("/profile")).status_code == 200
    assert (await other.get("/profile")).status_code == 303, "logged out"
    nobody = quick_console.browser()
    assert (await nobody.post("/login", email="ada@example.com", password=OLD)).status_code == 401
    assert (await nobody.post("/login", email="ada@example.com", password=NEW)).status_code == 303


async def test_sessions_are_listed_and_ended(quick_console):
    user = quick_console.user("ada", quick_console.ash, "viewer")
    browser, second, third = (quick_console.browser(user) for _ in range(3))
    stranger = quick_console.browser(quick_console.user("eve", quick_console.ash, "owner"))
    ids = dict(zip("abc", _sessions_of(quick_console, user), strict=True))
    assert "3 sessions" in text_of(await browser.get("/profile"))
    statuses = {name: (await stranger.post(f"/profile/sessions/{each}/end")).status_code for name, each in ids.items()}
    assert statuses == dict.fromkeys("abc", 404), "of somebody else"
    answers = [(await browser.post(f"/profile/sessions/{each}/end")).status_code for each in ids.values()]
    assert sorted(answers) == [303, 303, 409], "one's own is left by logging out"
    assert [(await each.get("/profile")).status_code for each in (browser, second, third)] == [200, 303, 303]
    further = quick_console.browser(user)
    assert (await browser.post("/profile/sessions/end")).status_code == 303
    assert browser.notice == "1 other session ended."
    assert (await further.get("/profile")).status_code == 303


async def test_nobody_is_sent_to_the_log_in(quick_console):
    nobody = quick_console.browser()
    answers = [await nobody.get("/profile"), await nobody.post("/profile/name", name="Eve")]
    assert [each.headers["location"].partition("?")[0] for each in answers] == ["/console/login"] * 2


def test_browsers_have_names():
    firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"
    chrome = "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Mobile Safari/537.36"
    assert [browser_name(each) for each in (firefox, chrome, "curl/8.1", "")] == [
        "Firefox on Linux",
        "Chrome on Android",
        "curl/8.1",
        "Unknown",
    ]


def _sessions_of(console, user):
    return [each.id for each in console.accounts.see(list_sessions, user, console.accounts.clock)]
