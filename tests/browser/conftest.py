"""The console in a real Chromium, over a platform with the echo engine."""

import re
from contextlib import contextmanager

import pytest
from playwright.sync_api import Error, expect, sync_playwright

from tests.browser.people import OPERATOR, PASSWORD, Person
from tests.browser.programs import chromium
from tests.e2e.installation import Installation

LINK = re.compile(r"http://[\w.:]+/console/links/[0-9a-f]+")
KEY = re.compile(r"tmt_\w+")


class Platform(Installation):
    """`url`, the first key, and the one-time link of the first administrator, as `up` printed them."""

    def start(self, *tiers):
        self.config.write_text(
            f"{self.config.read_text()}\n[tiers.mistral-small.echo]\nfaults = true\n"
        )  # a pace on request
        told = self.ok("up", "--detach", "--engine", "echo", "--tiers", ",".join(tiers), "--port", "0")
        self.link = LINK.search(told)[0]
        self.key = KEY.search(told)[0]
        self.url = self.link.partition("/console/")[0]


@pytest.fixture(scope="session")
def platform(tmp_path_factory):
    made = Platform(tmp_path_factory.mktemp("console"))
    made.start("mistral-tiny", "mistral-small", "mistral-embed")
    yield made
    made.ok("down")


@pytest.fixture(scope="session")
def chrome():
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def operator_state(platform, chrome):
    """The first administrator: he opens the link of the first start, once for all tests."""
    context = chrome.new_context()
    page = context.new_page()
    page.goto(platform.link)
    page.fill("[name=email]", OPERATOR)
    page.fill("[name=name]", "Ada Lovelace")
    page.fill("[name=password]", PASSWORD)
    page.click("text=Continue")
    page.wait_for_url(re.compile("/console/o/"))
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def browsing(platform, chrome):
    """Opens windows; whatever a page logs as an error fails the test."""
    troubles, contexts = [], []

    @contextmanager
    def accepting(*texts):
        """Refusals that a test provokes are in the browser's log too."""
        before = len(troubles)
        yield
        troubles[before:] = [each for each in troubles[before:] if not any(text in each for text in texts)]

    def open_window(state=None, **options):
        context = chrome.new_context(base_url=platform.url, storage_state=state, **options)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda said: troubles.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        return Person(page, platform)

    open_window.accepting = accepting
    yield open_window
    for context in contexts:
        try:
            context.close()
        except Error as error:
            troubles.append(str(error))
    assert troubles == []


@pytest.fixture
def operator(browsing, operator_state):
    return browsing(operator_state)
