"""The life of a customer, from the operator's first act for them to a key revoked in mid-stream."""

import re
import threading

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser.people import PASSWORD

CAROL = "carol@example.com"
CHAT = "/v1/chat/completions"
SLOW = "A long story. [[echo:tokens=1500]] [[echo:pace=20]]"


def send(person, dialog):
    person.page.click(f"#{dialog} button[type=submit]")


@pytest.fixture(scope="module")
def organisation(platform, chrome, operator_state):
    """Made by the operator, with 1.00 of credit; the link for its first owner."""
    page = chrome.new_context(base_url=platform.url, storage_state=operator_state).new_page()
    page.goto("/console/operator/organisations")
    page.click("[data-open=create]")
    page.fill("#create [name=name]", "Bora Bakery")
    page.fill("#create [name=owner]", CAROL)
    page.click("#create button[type=submit]")
    link = page.locator("#one-time-link").inner_text()
    page.goto("/console/operator/organisations?q=bora")
    home = page.get_by_role("link", name="Open the console of Bora Bakery").get_attribute("href")
    page.context.close()
    return home.removeprefix("/console"), link


@pytest.fixture
def api(platform):
    """A client whose key comes later."""
    with httpx.Client(base_url=platform.url, timeout=30) as client:
        yield client


def test_the_life_of_a_customer(browsing, operator_state, platform, organisation, api):
    home, link = organisation
    carol = browsing()
    page = carol.page
    page.goto(link)
    page.fill("[name=name]", "Carol Shaw")
    page.fill("[name=password]", PASSWORD)
    page.click("text=Continue")
    carol.reads("Welcome.")
    assert carol.home == home
    assert page.locator("#menu a[href*=operator]").count() == 0

    # A key, shown once, with a limit of its own.
    carol.go(f"{home}/keys")
    page.click("[data-open=create]")
    page.fill("#create [name=name]", "shop")
    page.click("text=Limits of its own")
    page.fill("#create [name=requests_per_minute]", "3")
    send(carol, "create")
    secret = page.locator("#new-key").inner_text()
    assert secret.startswith("tmt_")
    page.click("[data-copy=new-key]")
    assert page.evaluate("navigator.clipboard.readText()") == secret
    page.click("text=I have copied it")
    carol.reads("Requests per minute")
    assert secret not in page.content()

    # Used: it appears while one looks.
    carol.go(home)
    api.headers["authorization"] = f"Bearer {secret}"
    body = {"model": "mistral-tiny", "messages": [{"role": "user", "content": "Bread?"}], "max_tokens": 20}
    assert api.post(CHAT, json=body).status_code == 200
    expect(page.locator(".tile", has_text="Requests")).to_contain_text("1", timeout=30_000)
    expect(page.locator("main")).to_contain_text("mistral-tiny", timeout=30_000)

    # A limit, and why.
    answers = [api.post(CHAT, json=body) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    carol.finds(f"{home}/requests/refused", "shop")
    expect(page.locator("tbody tr").first).to_contain_text(re.compile("requests per minute", re.IGNORECASE))
    key_path = page_of_key(carol, home)
    carol.go(f"{home}/limits?key={key_path.rsplit('/', 1)[1]}")
    expect(page.locator("tr", has_text="key shop")).to_contain_text("3 of 3")

    # Usage says the same as the requests; money runs out and comes again.
    carol.go(f"{home}/usage")
    expect(page.locator("tbody tr", has_text="mistral-tiny")).to_contain_text("3")
    top_up(browsing, operator_state, home)
    carol.go(f"{home}/billing")
    carol.reads("1.00")

    # Revoked in mid-stream: it ends, and everything stands in the audit log.
    carol.go(key_path)
    page.get_by_role("button", name=re.compile("Remove the limit")).click()
    carol.reads("Limits of its own")
    heard = listening(platform, secret)
    page.click("[data-open=revoke]")
    send(carol, "revoke")
    carol.reads("revoked")
    heard.thread.join(20)
    assert not heard.thread.is_alive()
    assert '"finish_reason":"error"' in heard.text
    assert api.post(CHAT, json=body).status_code == 401
    carol.go(f"{home}/audit")
    for action in ("api_key.create", "limit.remove", "api_key.revoke", "credit."):
        expect(page.locator("tbody")).to_contain_text(action)


def page_of_key(person, home):
    person.go(f"{home}/keys")
    return person.page.get_by_role("link", name="shop").get_attribute("href").removeprefix("/console")


def top_up(browsing, operator_state, home):
    ada = browsing(operator_state)
    ada.go(f"{home}/billing")
    ada.page.click("[data-open=top-up]")
    ada.page.fill("#top-up [name=amount]", "1.00")
    ada.page.fill("#top-up [name=note]", "transfer 17")
    send(ada, "top-up")
    ada.reads("transfer 17")


class Heard:
    """What a stream says, until it ends."""

    def __init__(self):
        self.text = ""
        self.begun = threading.Event()
        self.thread = None


def listening(platform, secret):
    heard = Heard()

    def listen():
        body = {"model": "mistral-small", "messages": [{"role": "user", "content": SLOW}], "stream": True}
        head = {"authorization": f"Bearer {secret}"}
        with httpx.stream("POST", platform.url + CHAT, json=body, headers=head, timeout=60) as answer:
            for chunk in answer.iter_text():
                heard.text += chunk
                heard.begun.set()

    heard.thread = threading.Thread(target=listen, daemon=True)
    heard.thread.start()
    assert heard.begun.wait(20)
    return heard


def test_another_organisations_pages_do_not_exist(browsing, organisation, operator_state):
    ada = browsing(operator_state)
    ada.go("")
    foreign = ada.home
    home, _ = organisation
    carol = browsing()
    carol.log_in(CAROL)
    with browsing.accepting("404", "403"):
        for path in ("", "/usage", "/keys", "/billing", "/members", "/audit", "/chat"):
            assert carol.page.goto(f"/console{foreign}{path}").status == 404
        for path in ("/operator/organisations", "/operator/pools", "/operator/prices"):
            assert carol.page.goto(f"/console{path}").status in {403, 404}
    carol.go(home)
