"""Somebody in front of a browser."""

import re

from playwright.sync_api import expect

OPERATOR = "ada@example.com"
PASSWORD = "correct horse battery"
LOOKS_MAX = 100
LOOK_MS = 200


class Person:
    def __init__(self, page, platform) -> None:
        self.page = page
        self.platform = platform

    def go(self, path):
        answer = self.page.goto(f"/console{path}")
        assert answer.status < 400, (path, answer.status)
        return self.page

    def log_in(self, email, password=PASSWORD):
        self.page.goto("/console/login")
        self.page.fill("[name=email]", email)
        self.page.fill("[name=password]", password)
        self.page.click("button:has-text('Log in')")
        self.page.wait_for_url(re.compile("/console/o/"))

    @property
    def home(self):
        """/o/ID of the organisation that is open."""
        return re.search(r"/o/[0-9a-f]+", self.page.url)[0]

    def finds(self, path, text):
        """On a page that is not live: looks again, for what is written down a moment later."""
        for _ in range(LOOKS_MAX):
            if text in self.go(path).locator("main").inner_text():
                return
            self.page.wait_for_timeout(LOOK_MS)
        raise AssertionError(f"{path} never said {text!r}")

    def reads(self, text):
        """Sooner or later, somewhere on the page."""
        expect(self.page.locator("body")).to_contain_text(text, timeout=20_000)
