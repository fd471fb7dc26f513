"""Every page of the console, light and dark, over a year of fifty organisations: docs/screenshots.

python -m tests.browser.screenshots [--records 60000] [--folder docs/screenshots]
"""

import argparse
import io
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.console.chats import OPERATOR_EMAIL
from core.installation import BESIDE_THE_PROGRAM
from migrations.run import migrate
from tests.browser.conftest import LINK
from tests.browser.pages import QUESTIONS
from tests.browser.people import PASSWORD
from tests.browser.programs import chromium
from tests.e2e.installation import Installation

WIDTH, HEIGHT = 1280, 900
COLOURS = 96
BYTES_MAX = 3_000_000
TIERS = "mistral-tiny,mistral-small,mistral-medium,mistral-embed"
ROOT = Path(__file__).parents[2]
SETTLE_MS = 2_500  # charts are drawn, the first live part has come
CHAT_TIER = "mistral-small"
ASKED = ("Bonjour, qui es-tu ?", "Write a Python function that reverses a string.", "¿Cuál es la capital de Portugal?")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=60_000)
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "screenshots")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for old in given.folder.glob("*.png"):
        old.unlink()
    with tempfile.TemporaryDirectory(prefix="tramontane-shots-") as folder, sync_playwright() as playwright:
        platform = Installation(Path(folder))
        _seed(platform, given.records)
        platform.config.write_text(BESIDE_THE_PROGRAM.read_text())  # the demo checkpoints answer
        platform.ok("up", "--detach", "--tiers", TIERS, "--port", "0")
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            _take_all(platform, browser, given.folder)
        finally:
            browser.close()
            platform.ok("down")
    total = sum(path.stat().st_size for path in given.folder.glob("*.png"))
    print(f"{total:,} bytes in {given.folder}")  # noqa: T201 - it is a command
    return 0 if total <= BYTES_MAX else 1


def _seed(platform: Installation, records: int) -> None:
    platform.home.root.mkdir(mode=0o700)
    url = f"sqlite:///{platform.home.root / 'tramontane.sqlite3'}"
    migrate(url)
    argv = [sys.executable, "-m", "benchmarks.console.seed", "--records", str(records), "--database", url]
    subprocess.run(argv, cwd=ROOT, check=True)


def _take_all(platform: Installation, browser: Browser, folder: Path) -> None:
    url = platform.json("status")["base_url"]
    state = _log_in(platform, browser, url)
    with _load(platform, url, state, browser):
        for scheme in ("light", "dark"):
            context = browser.new_context(
                base_url=url, storage_state=state, color_scheme=scheme, viewport={"width": WIDTH, "height": HEIGHT}
            )
            page = context.new_page()
            for name, path in _paths(page).items():
                page.goto(path)
                page.wait_for_timeout(SETTLE_MS)
                _save(page, folder / f"{name}-{scheme}.png")
            _chat(page, folder / f"chat-{scheme}.png")
            context.close()
        nobody = browser.new_page(base_url=url, viewport={"width": WIDTH, "height": HEIGHT})
        nobody.goto("/console/login")
        _save(nobody, folder / "login-light.png")


def _log_in(platform: Installation, browser: Browser, url: str) -> object:
    link = LINK.search(platform.ok("users", "reset-password", OPERATOR_EMAIL))
    assert link is not None
    context = browser.new_context(base_url=url)
    page = context.new_page()
    page.goto(link[0])
    page.fill("[name=password]", PASSWORD)
    page.click("button[type=submit]")
    page.wait_for_url(re.compile("/console/o/"))
    state = context.storage_state()
    context.close()
    return state


def _paths(page: Page) -> dict[str, str]:
    """What the menu leads to, and one of each kind of page behind it, by the name of the picture."""
    page.goto("/console")
    links = page.eval_on_selector_all("#menu a", "all => all.map(each => each.getAttribute('href'))")
    home = links[0]
    found = {link.removeprefix(home).removeprefix("/console").strip("/").replace("/", "-"): link for link in links}
    del found["chat"]
    found["overview"] = found.pop("")
    page.goto(f"{home}/keys")
    found["key"] = page.locator("#keys tbody a").first.get_attribute("href") or ""
    page.goto(f"{home}/requests")
    found["request"] = page.locator(f"tbody a[href^='{home}/requests/']").first.get_attribute("href") or ""
    found["refused"] = f"{home}/requests/refused"
    found["profile"] = "/console/profile"
    return found


def _chat(page: Page, path: Path) -> None:
    page.goto("/console")
    page.click("#menu >> text=Chat")
    page.select_option("#chat-tier", CHAT_TIER)
    for turn, text in enumerate(ASKED):
        page.fill("#chat-text", text)
        page.press("#chat-text", "Enter")
        page.locator(".turn-facts").nth(turn).wait_for()
    _save(page, path)


def _save(page: Page, path: Path) -> None:
    """In few colours: the pages have few, and the pictures lie in the tree."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


@contextmanager
def _load(platform: Installation, url: str, state: object, browser: Browser) -> Iterator[None]:
    """Requests of the largest organisation go on beside the pictures; some of them meet a limit."""
    page = browser.new_page(base_url=url, storage_state=state)
    page.goto("/console")
    home = page.url.rsplit("/", 1)[1]
    page.close()
    free = platform.json("keys", "create", "--name", "website", "--org", home)["key"]
    tight = platform.json("keys", "create", "--name", "nightly import", "--org", home)
    platform.ok("limits", "set", "key", tight["id"], "requests_per_minute", "5")
    over = threading.Event()
    asking = [threading.Thread(target=_ask, args=(url, key, over)) for key in (free, free, free, tight["key"])]
    for each in asking:
        each.start()
    try:
        yield
    finally:
        over.set()
        for each in asking:
            each.join()


def _ask(url: str, key: str, over: threading.Event) -> None:
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
        number = 0
        while not over.is_set():
            tier = ("mistral-tiny", "mistral-small", "mistral-medium")[number % 3]
            body = {"model": tier, "messages": [{"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}]}
            client.post("/v1/chat/completions", json={**body, "max_tokens": 200, "stream": True})
            number += 1
            over.wait(0.5)


if __name__ == "__main__":
    sys.exit(main())
