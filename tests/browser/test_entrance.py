"""The way in as people go it, and what every page owes to those who see little or use no mouse."""

from tests.browser.people import OPERATOR, PASSWORD


def test_log_in_and_out(browsing, operator_state):
    ada = browsing()
    ada.page.goto("/console")
    with browsing.accepting("401"):
        ada.page.fill("[name=email]", OPERATOR)
        ada.page.fill("[name=password]", "not the password")
        ada.page.keyboard.press("Enter")
        ada.reads("The e-mail address or the password is wrong.")
    with browsing.accepting("429"):
        ada.page.wait_for_timeout(1_100)  # what the throttle asks for after one mistake
        ada.log_in(OPERATOR, PASSWORD)
    ada.page.click("summary[aria-label='Ada Lovelace']")
    ada.page.click("text=Log out")
    ada.reads("You are logged out.")
    ada.page.goto("/console/profile")
    assert "/console/login" in ada.page.url


def test_the_theme_is_kept(operator):
    page = operator.go("")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("[data-toggle-theme]")
    after = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert before != after
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == after


def test_a_workspace_by_keyboard_alone(operator):
    page = operator.go("")
    page = operator.go(f"{operator.home}/workspaces")
    page.get_by_role("button", name="New workspace").focus()
    page.keyboard.press("Enter")
    page.keyboard.type("Keyboard")
    page.keyboard.press("Enter")
    operator.reads("The workspace Keyboard is there.")
