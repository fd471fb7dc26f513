"""How experts are chosen, on the operators' page: shares against the even share, by time and by workspace."""

import csv
import io
import json
import re
from html import unescape

from billing.experts_move import move_experts
from core.experts import ExpertCounts, ExpertSample, MemoryExpertLog
from gateway.accounts.roles import Role
from tests.console.queries import counted
from tests.console.world import text_of

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
PATH = "/operator/experts"


async def sample(console, *samples):
    log = MemoryExpertLog(console.accounts.clock)
    await log.append(samples)
    await move_experts(console.accounts.database, log, f"c{console.accounts.ids.token(2)}")


def of(console, first, second=(5, 5, 5, 5), workspace=None, tier="mistral-small"):
    tenant = console.ash
    return ExpertSample(tier, tenant.id, workspace or tenant.new("workspace_id"), ExpertCounts((0, 1), (first, second)))


def charts(page):
    found = re.findall(r'id="([^"]+)" role="img"[^>]*data-chart="([^"]*)"', page.text)
    return {name: json.loads(unescape(data)) for name, data in found}


async def test_shares_are_told_against_the_even_share(console):
    browser = console.as_operator()
    await sample(console, of(console, (16, 4, 0, 0)), of(console, (4, 4, 4, 4)))
    with counted(console.accounts.database) as statements:
        page = await browser.get(PATH)
    assert len(statements) <= 11, statements  # four of them for who looks
    text = text_of(page)
    assert "36 choices" in text
    assert "Even share 25.0 %" in text
    assert "Most uneven layer 2.22" in text
    assert "layer 0, its busiest expert" in text
    heatmap = charts(page)["heatmap"]
    assert heatmap["middle"] == 25
    assert [0, 0, 55.5556] in heatmap["cells"]
    assert len(heatmap["cells"]) == 8
    assert charts(page)["balance"]["series"][1] == {"name": "layer 0", "data": [2.2222]}
    exported = await browser.get(f"{PATH}?format=csv&sort=-times")
    first, *rest = csv.DictReader(io.StringIO(exported.text))
    assert first == {"layer": "0", "expert": "0", "tokens": "20", "share": str(20 / 36), "times": "2.2222"}
    assert len(rest) == 7
    assert "Nothing here matches" in text_of(await browser.get(f"{PATH}?q=nothing"))


async def test_time_workspace_and_tier_are_chosen(quick_console):
    ash, browser, clock = quick_console.ash, quick_console.as_operator(), quick_console.accounts.clock
    mine, other = ash.new("workspace_id"), ash.new("workspace_id")
    await sample(quick_console, of(quick_console, (9, 0, 0, 0), workspace=mine))
    clock.advance(3 * DAY_MS)
    await sample(quick_console, of(quick_console, (0, 0, 0, 7), workspace=other))
    await sample(quick_console, of(quick_console, (1, 1), (1, 1), tier="mistral-medium"))
    browser = quick_console.as_operator()

    async def cells(query):
        heatmap = charts(await browser.get(f"{PATH}?tier=mistral-small&{query}"))["heatmap"]
        return [share for expert, layer, share in heatmap["cells"] if layer == 0]

    assert await cells("period=24h") == [0, 0, 0, 100]
    assert await cells("period=7d") == [56.25, 0, 0, 43.75]
    assert await cells(f"period=30d&workspace={mine}") == [100, 0, 0, 0]
    week = await browser.get(f"{PATH}?tier=mistral-small&period=7d")
    assert len(charts(week)["entropy"]["x"]) == 2
    assert f'value="{mine}"' in week.text
    nothing = text_of(await browser.get(f"{PATH}?tier=mistral-small&period=24h&workspace={mine}"))
    assert "Nothing was sampled in this time" in nothing
    assert "one of 2 experts" in text_of(await browser.get(PATH)), "the first tier by name"


async def test_before_anything_was_sampled_it_says_how_to_begin(quick_console):
    assert "No routing was sampled yet" in text_of(await quick_console.as_operator().get(PATH))


async def test_only_operators_see_it(quick_console):
    for role in Role:
        browser = quick_console.as_role(role.value)
        assert (await browser.get(PATH)).status_code in {403, 404}
        assert PATH not in (await browser.get(f"/o/{quick_console.ash.id}/workspaces")).text
