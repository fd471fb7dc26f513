"""The life of an operator: plans, prices, pools, a customer suspended and let in again, all of it in the audit log."""

import re

import httpx
from playwright.sync_api import expect

from tests.browser.pages import play
from tests.e2e.installation import until

CHAT = "/v1/chat/completions"


def test_the_life_of_an_operator(operator, platform):
    play(platform)
    page = operator.go("/operator/organisations")
    page.get_by_role("link", name="default", exact=True).click()
    expect(page.locator("h1")).to_contain_text("default")
    body = {"model": "mistral-tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}

    def ask():
        headers = {"authorization": f"Bearer {platform.key}"}
        return httpx.post(platform.url + CHAT, json=body, headers=headers, timeout=30)

    page.click("[data-open=suspend]")
    page.click("#suspend button[type=submit]")
    expect(page.locator(".badge.bad").first).to_contain_text("suspended")
    assert ask().status_code in {401, 403}
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".badge.good").first).to_contain_text("active")
    until(lambda: ask().status_code == 200)  # a gateway remembers a refused key for five seconds

    operator.go("/operator/pools")
    operator.reads("mistral-tiny")
    row = page.locator("#workers tbody tr").first
    expect(row).to_contain_text(re.compile("mistral-(tiny|small|embed)"))
    operator.go("/operator/revenue")
    expect(page.locator("table").first).to_contain_text("mistral-small")
    operator.go("/operator/plans")
    operator.reads("development")
    operator.go("/operator/prices")
    operator.reads("mistral-embed")
    operator.go("/operator/experts")
    operator.go("/operator/audit")
    for action in ("organisation.suspend", "organisation.resume"):
        expect(page.locator("tbody")).to_contain_text(action)
