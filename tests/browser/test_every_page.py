"""What holds for every page: nothing for axe-core to find, nothing wider than a phone, no error."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.pages import pages_of, play

PHONE = {"width": 390, "height": 800}
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}


@pytest.fixture(scope="module")
def played(platform):
    """Some requests of each kind, so that pages have something to show."""
    play(platform)


def faults(page):
    """What axe-core finds on the page as it stands."""
    found = Axe().run(page, options=RULES).response["violations"]
    return [
        (each["id"], node["html"][:200], node["failureSummary"][:300]) for each in found for node in each["nodes"][:3]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_and_every_dialog_is_accessible(played, browsing, operator_state, theme):
    person = browsing(operator_state, color_scheme=theme, reduced_motion="reduce")
    found = {}
    for path in pages_of(person):
        page = person.go(path)
        page.wait_for_load_state("load")
        found[path] = faults(page)
        for name in page.eval_on_selector_all("[data-open]", "all => [...new Set(all.map(e => e.dataset.open))]")[:6]:
            page.evaluate("name => document.getElementById(name).showModal()", name)
            found[f"{path} {name}"] = faults(page)
            page.evaluate("name => document.getElementById(name).close()", name)
    assert len(found) > 10
    told = "\n".join(f"{place}: {' '.join(each)}" for place, several in found.items() for each in several)
    assert not told, told


def test_no_page_is_wider_than_a_phone(played, browsing, operator_state):
    person = browsing(operator_state, viewport=PHONE)
    wide = {}
    for path in pages_of(person):
        page = person.go(path)
        page.wait_for_load_state("load")
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > PHONE["width"]:
            wide[path] = width
    assert wide == {}


def test_every_page_does_without_scripts(played, browsing, operator_state):
    person = browsing(operator_state, java_script_enabled=False)
    for path in pages_of(person):
        page = person.go(path)
        assert page.locator("h1").inner_text()
