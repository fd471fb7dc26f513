"""The life of a chat, in a browser: two tiers, stop, ask again, edit, keep, find, and what a model must never do."""

import re
import sqlite3
from contextlib import closing

from playwright.sync_api import expect

from tests.browser.test_every_page import PHONE, faults

SLOW = "Tell me about the mistral. [[echo:tokens=1500]] [[echo:pace=25]]"
EVIL = """# Heading

<script>window.broken = 1</script> <img src="https://evil.example/a.png" onerror="window.broken = 1">
<svg onload="window.broken = 1"><style>body { display: none }</style></svg>
<iframe src="https://evil.example/"></iframe><form action="https://evil.example/"><input name="q"></form>

![a picture](https://evil.example/b.png) [bad](javascript:window.broken=1) [data](data:text/html,<script>1</script>)
<a href="javascript:window.broken=1" onclick="window.broken=1">html link</a> [good](https://example.com/page)

```python
def wind(speed):
    return "<script>window.broken = 1</script>" if speed > 3 else None
```

| place | speed |
|---|---:|
| Lyon | 12 |
"""


class Talk:
    """Somebody in front of the chat."""

    def __init__(self, person) -> None:
        self.person = person
        self.page = person.page
        person.go("")
        self.home = person.home
        person.go(f"{self.home}/chat")

    def write(self, text):
        self.page.fill("#chat-text", text)
        self.page.press("#chat-text", "Enter")

    def ask(self, text):
        """And wait for the whole answer."""
        before = self.answers.count()
        self.write(text)
        self.answered(before + 1)

    def answered(self, count):
        expect(self.page.locator(".turn-facts")).to_have_count(count)
        expect(self.page.locator("#chat-stop")).to_be_hidden()

    @property
    def answers(self):
        return self.page.locator("#thread .answer")

    @property
    def said(self):
        return self.answers.last.locator(".prose").inner_text()


def test_a_conversation_in_two_tiers(browsing, operator_state):
    talk = Talk(browsing(operator_state))
    page = talk.page
    page.click("[data-panel=chat-details][aria-controls]")
    page.fill("#chat-system", "Answer in one word.")
    talk.ask("Which wind blows in Lyon?")
    assert re.search(r"/chat/[0-9a-f]{32}$", page.url)
    expect(page.locator("h1")).to_have_text("Which wind blows in Lyon?")
    expect(page.locator("#chat-list [aria-current]")).to_contain_text("Which wind")
    expect(page.locator("#chat-said")).to_contain_text("Answer: ")
    page.select_option("#chat-tier", "mistral-small")
    expect(page.locator("#chat-saved")).to_have_text("Saved for the next message.")
    talk.ask("And in Nice?")
    expect(page.locator(".turn-who")).to_have_text(["mistral-tiny", "mistral-small"])
    expect(page.locator("#chat-totals dd").first).to_have_text("2")
    words = talk.said
    talk.answers.last.locator("[data-chat-copy]").click()
    expect(page.locator("#chat-said")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == words
    page.reload()
    expect(page.locator("#chat-system")).to_have_value("Answer in one word.")
    expect(page.locator("#chat-tier")).to_have_value("mistral-small")
    assert talk.said == words
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert faults(page) == [], scheme


def test_an_answer_is_stopped_asked_again_and_the_question_changed(browsing, operator_state):
    talk = Talk(browsing(operator_state))
    page = talk.page
    page.select_option("#chat-tier", "mistral-small")
    talk.write(SLOW)
    expect(talk.answers.last.locator(".prose")).to_contain_text(re.compile(r"\w+ \w+ \w+"))
    page.click("#chat-stop")
    expect(page.locator(".turn-note")).to_have_text("You stopped here.")
    expect(page.locator(".turn-facts")).to_contain_text("out")  # counted by what was delivered, from the usage record
    out = int(re.search(r"([\d\u202f]+) out", page.locator(".turn-facts").inner_text())[1].replace("\u202f", ""))
    assert 0 < out < 1_000
    first = talk.said
    page.locator("[data-chat-retry]").click()
    expect(page.locator("#chat-stop")).to_be_visible()
    expect(talk.answers.last.locator(".prose")).to_contain_text(re.compile(r"\w+ \w+"))
    page.click("#chat-stop")
    expect(page.locator(".versions")).to_contain_text("2 of 2")
    page.click("[aria-label='Version before']")
    expect(page.locator(".versions")).to_contain_text("1 of 2")
    assert talk.said == first
    page.locator("[data-chat-edit]").click()
    page.fill("#chat-edit-text", "Only one word, please.")
    page.click(".turn-edit [type=submit]")
    talk.answered(1)
    expect(page.locator(".question .bubble")).to_have_text("Only one word, please.")
    expect(page.locator(".question .versions")).to_contain_text("2 of 2")
    page.click(".question [aria-label='Version before']")
    expect(page.locator(".question .bubble")).to_contain_text("Tell me about the mistral.")


def test_leaving_the_page_stops_the_answer(browsing, operator_state, platform):
    talk = Talk(browsing(operator_state))
    page = talk.page
    page.select_option("#chat-tier", "mistral-small")
    talk.write(SLOW)
    expect(talk.answers.last.locator(".prose")).to_contain_text(re.compile(r"\w+ \w+"))
    chat = page.url
    page.goto("/console/profile")
    page.goto(chat)
    for _ in range(50):
        if page.locator(".turn-note").count():
            break
        page.reload()
    expect(page.locator(".turn-note")).to_have_text("You stopped here.")


def test_conversations_are_found_renamed_exported_and_deleted(browsing, operator_state):
    talk = Talk(browsing(operator_state))
    page = talk.page
    talk.ask("Quokkas and their habits")
    page.click("[data-open=rename]")
    page.fill("#rename [name=title]", "Small marsupials")
    page.click("#rename [type=submit]")
    expect(page.locator("h1")).to_have_text("Small marsupials")
    page.fill(".chat-side [name=q]", "quokkas")
    expect(page.locator("#chat-list a")).to_have_count(1)
    page.click(".chat-more summary")
    with page.expect_download() as download:
        page.click("text=Markdown, this branch")
    assert download.value.suggested_filename.endswith(".md")
    page.keyboard.press("Escape")
    page.click("[data-open=delete]")
    page.click("#delete [type=submit]")
    talk.person.reads("The conversation is deleted")
    page.fill(".chat-side [name=q]", "quokkas")
    expect(page.locator("#chat-list")).to_contain_text("No conversation has")


def test_a_model_can_neither_run_nor_load_anything(browsing, operator_state, platform):
    talk = Talk(browsing(operator_state))
    page = talk.page
    talk.ask("Say something evil")
    chat = page.url.rsplit("/", 1)[1]
    with closing(sqlite3.connect(platform.home.root / "tramontane.sqlite3", timeout=10)) as database:
        database.execute("UPDATE turns SET content = ? WHERE conversation_id = ? AND number = 2", (EVIL, chat))
        database.commit()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    shown(page, talk)
    page.evaluate(
        """text => {
            const element = document.querySelector(".answer .prose");
            const prose = new chatMarkdown.Prose(element);
            for (let i = 0; i < text.length; i += 5) {
                prose.append(text.slice(i, i + 5));
                prose.show(text.slice(0, i + 5));
            }
        }""",
        EVIL,
    )
    shown(page, talk)
    assert [url for url in asked if "evil" in url] == []


def shown(page, talk):
    prose = talk.answers.last.locator(".prose")
    expect(prose.locator("h3")).to_have_text("Heading")
    assert prose.locator("script, img, iframe, form, input, style, link, [onclick], [onerror], [onload]").count() == 0
    assert prose.locator("svg:not(.icon)").count() == 0
    links = prose.locator("a[href]").evaluate_all("all => all.map(a => [a.getAttribute('href'), a.rel, a.target])")
    rel = "noopener noreferrer nofollow"
    assert links == [
        ["https://evil.example/b.png", rel, "_blank"],  # a picture is only a link
        ["https://example.com/page", rel, "_blank"],
    ]
    assert "<script>window.broken = 1</script> <img" in prose.inner_text()
    assert prose.locator(".code-head span").first.inner_text() == "python"
    assert prose.locator(".hljs-keyword").first.inner_text() == "def"
    assert page.evaluate("window.broken") is None
    prose.locator("[data-chat-code]").click()
    assert page.evaluate("navigator.clipboard.readText()").startswith("def wind(speed):")


def test_a_limit_and_a_revoked_key_are_told(browsing, operator_state, platform):
    talk = Talk(browsing(operator_state))
    page = talk.page
    talk.ask("Hello")
    [key] = [each for each in platform.json("keys", "list")["keys"] if each["name"] == "Chat of Ada Lovelace"]
    limit = platform.json("limits", "set", "key", key["id"], "requests_per_minute", "0")
    with browsing.accepting("429"):
        talk.write("And again")
        expect(page.locator("#chat-problem")).to_contain_text("Rate limit exceeded. requests_per_minute (key): limit 0")
        expect(page.locator(".turn-note")).to_contain_text("Nothing answers this yet")
    platform.ok("limits", "remove", limit["id"])
    page.click("[data-chat-retry]:has-text('Ask again')")
    talk.answered(2)
    page.select_option("#chat-tier", "mistral-small")
    with browsing.accepting("403"):
        talk.write(SLOW)
        expect(talk.answers.last.locator(".prose")).to_contain_text(re.compile(r"\w+ \w+"))
        platform.ok("keys", "revoke", key["id"])
        expect(page.locator(".chat-closed")).to_contain_text("was ended")
    page.click("text=Open it again")
    page.click("text=Open the chat again")
    talk.person.reads("Your chat is open again.")
    talk.ask("Back again")


def test_a_chat_on_a_phone(browsing, operator_state):
    talk = Talk(browsing(operator_state, viewport=PHONE, has_touch=True, is_mobile=True))
    page = talk.page
    page.fill("#chat-text", "One\ntwo")
    page.click("#chat-send")
    talk.answered(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.click("[data-panel=chat-side]")
    expect(page.locator("#chat-list a").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#chat-list")).to_be_hidden()
    page.click("[data-panel=chat-details][aria-controls]")
    expect(page.locator("#chat-system")).to_be_visible()
    assert faults(page) == []
