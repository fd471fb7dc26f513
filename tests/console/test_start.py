"""Getting started: filled in with what this installation has."""

import html
import re

from gateway.accounts.roles import Role
from gateway.console.snippets import clients_for
from tests.console.world import text_of


def codes_of(page):
    return [html.unescape(each) for each in re.findall(r'<code id="step-\w+"[^>]*>(.*?)</code>', page.text, re.DOTALL)]


async def test_each_client_has_its_programs_filled_in(quick_console):
    path = f"/o/{quick_console.ash.id}/start"
    browser = quick_console.as_role("developer")
    expected = clients_for("http://gateway", "auto", "embed")
    assert [client.id for client in expected] == ["curl", "mistralai", "openai", "langchain", "tramontane"]
    for client in expected:
        page = await browser.get(f"{path}?client={client.id}")
        shown = codes_of(page)
        assert shown[-3:] == [example.text for example in client.examples]
        assert 'export MISTRAL_API_KEY="tmt_..."' in shown
        assert not re.search(r"BASE_URL|TIER\b|EMBEDDER", "".join(shown))
        assert "style=" not in page.text
    assert "curl http://gateway/v1/chat/completions" in (await browser.get(path)).text, "curl comes first"
    other = "".join(codes_of(await browser.get(f"{path}?client=openai&tier=manual")))
    assert 'model="manual"' in other
    assert 'model="auto"' not in other


async def test_everybody_who_belongs_may_begin(quick_console):
    path = f"/o/{quick_console.ash.id}/start"
    for role in Role:
        page = await quick_console.as_role(role.value).get(path)
        assert page.status_code == 200
        may = role in {Role.OWNER, Role.ADMIN, Role.DEVELOPER}
        assert ("It is shown once" in text_of(page)) == may, role
    stranger = quick_console.as_role("owner", quick_console.birch)
    assert (await stranger.get(path)).status_code == 404
    strange = await quick_console.as_role("viewer").get(f"{path}?client=nosuch&tier=<script>")
    assert (strange.status_code, "<script>" in strange.text.partition("<main")[2]) == (200, False)


def test_without_an_embedder_there_is_no_example_of_one():
    for client in clients_for("http://gateway", "mistral-tiny", ""):
        assert [example.id for example in client.examples] == ["chat", "stream"]
    assert all(client.examples == () for client in clients_for("http://gateway", "", ""))
