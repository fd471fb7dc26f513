"""Requests: the list in pages and filters, as a file; each by its id: settled, open, refused; what who sees."""

import csv
import io
import random
import re

import pytest

from billing.models import UsageRecord
from billing.requests import FAILED_ANY, RequestFilter, list_requests
from billing.rollups import FAILED
from core.queue.base import Admission, Admitted, Price, WorkerSlot
from core.wire import CHAT, Job, Sampling
from gateway.accounts.roles import Role
from gateway.console.request import cost, stages
from tests.books import rows_of
from tests.console.test_overview import refusal
from tests.console.usage_world import Usage
from tests.console.world import text_of

DAY_MS = 86_400_000
QUERIES_MAX = 12


def spread(usage, count=150, days=30):
    chance = random.Random(5)
    places = [usage.workspace("mine"), usage.workspace("other")]
    events = []
    for _ in range(count):
        workspace, key = chance.choice(places)
        ago_ms = chance.choice((chance.randrange(days * DAY_MS), chance.randrange(days) * DAY_MS))
        outcomes = ("finished",) * 6 + ("cancelled", "failed", "timeout")
        events.append(
            usage.event(
                ago_ms + 1_000,
                workspace=workspace,
                key_id=key,
                tier=chance.choice(("auto", "auto", "code")),
                outcome=chance.choice(outcomes),
                cost_nano=chance.randrange(10**9),
            )
        )
    usage.store(*events, usage.event(tenant=usage.console.birch))
    return places


def matching(rows, wanted):
    """By plain comparison, in the order of the list."""
    outcomes = FAILED if wanted.outcome == FAILED_ANY else {wanted.outcome}
    found = [
        row
        for row in rows
        if row["organisation"] == wanted.organisation
        and (wanted.workspaces is None or row["workspace"] in wanted.workspaces)
        and wanted.tier in ("", row["tier"])
        and wanted.workspace in ("", row["workspace"])
        and wanted.key_id in ("", row["key_id"])
        and (not wanted.outcome or row["outcome"] in outcomes)
        and (wanted.from_ms or 0) <= row["admitted_ms"] < (wanted.to_ms or 2**62)
    ]
    return sorted(found, key=lambda row: (row["admitted_ms"], row["request_id"]), reverse=True)


def test_every_filter_finds_what_it_says_in_pages_of_any_length(console):
    usage = Usage(console)
    (mine, my_key), (other, _) = spread(usage)
    rows = rows_of(console.accounts.database, UsageRecord)
    chance = random.Random(6)
    for _ in range(60):
        from_ms = chance.choice((None, None, usage.now_ms - chance.randrange(20 * DAY_MS)))
        wanted = RequestFilter(
            console.ash.id,
            workspaces=chance.choice((None, None, frozenset({mine}), frozenset())),
            tier=chance.choice(("", "", "code", "no such")),
            workspace=chance.choice(("", "", other)),
            key_id=chance.choice(("", "", my_key)),
            outcome=chance.choice(("", "", "finished", "cancelled", FAILED_ANY)),
            from_ms=from_ms,
            to_ms=chance.choice((None, (from_ms or usage.now_ms - 5 * DAY_MS) + 4 * DAY_MS)),
        )
        found, before, count = [], None, chance.choice((1, 7, 50, 400))
        for _ in range(400):
            page = console.accounts.see(list_requests, wanted, before, count)
            assert len(page.records) <= count
            found += [record.request_id for record in page.records]
            before = page.following
            if before is None:
                break
        assert found == [row["request_id"] for row in matching(rows, wanted)], wanted


async def test_the_list_is_paged_filtered_and_exported(quick_console):
    usage = Usage(quick_console)
    (_, my_key), _ = spread(usage)
    rows = rows_of(quick_console.accounts.database, UsageRecord)
    browser, path = quick_console.as_role("viewer"), f"/o/{quick_console.ash.id}/requests"
    pages, link = [], path
    while link:
        page = await browser.get(link)
        pages.append(re.findall(r'<code title="(\w+)"', page.text))
        older = re.search(r'href="/console([^"]+)" rel="next"', page.text)
        link = older[1].replace("&amp;", "&") if older else ""
    assert [len(ids) for ids in pages] == [50, 50, 50]
    assert [each for ids in pages for each in ids] == [
        row["request_id"] for row in matching(rows, RequestFilter(quick_console.ash.id))
    ]
    asked = f"key={my_key}&outcome=failed&range=7d"
    since = RequestFilter(quick_console.ash.id, key_id=my_key, outcome="failed", from_ms=usage.now_ms - 7 * DAY_MS)
    expected = [row["request_id"] for row in matching(rows, since)]
    exported = list(csv.DictReader(io.StringIO((await browser.get(f"{path}?{asked}&format=csv")).text)))
    assert [row["request_id"] for row in exported] == expected
    assert all(row["total_ms"] == "1800" for row in exported)
    shown = await browser.get(f"{path}?{asked}")
    assert re.findall(r'<code title="(\w+)"', shown.text) == expected
    assert "up to 100 000" in text_of(shown)
    assert "No request matches" in text_of(await browser.get(f"{path}?tier=nothing"))
    for wrong in ("after=x", "outcome=odd", "range=custom&from=x"):
        assert (await browser.get(f"{path}?{wrong}")).status_code == 422


async def test_a_request_is_found_by_its_id(quick_console):
    usage = Usage(quick_console)
    (mine,) = usage.store(usage.event())
    (theirs,) = usage.store(usage.event(tenant=quick_console.birch))
    browser, path = quick_console.as_role("viewer"), f"/o/{quick_console.ash.id}/requests"
    found = await browser.get(f"{path}?id= {mine.request_id} ")
    assert (found.status_code, found.headers["location"]) == (303, f"/console{path}/{mine.request_id}")
    for unknown in (theirs.request_id, "no-such-id"):
        assert "No request of the last day" in text_of(await browser.get(f"{path}?id={unknown}"))
        assert (await browser.get(f"{path}/{unknown}")).status_code == 404


async def test_a_settled_request_tells_its_time_and_its_cost_step_by_step(console):
    usage = Usage(console)
    workspace, key = usage.workspace("mine")
    (settled,) = usage.store(
        usage.event(
            workspace=workspace,
            key_id=key,
            prompt_tokens=1_001,
            cached_tokens=500,
            completion_tokens=77,
            decoded_tokens=80,
            attempt=2,
            cost_nano=172_480,
        )
    )
    page = await console.as_role("owner").get(f"/o/{console.ash.id}/requests/{settled.request_id}")
    text = text_of(page)
    for part in (
        "Where the time went 1.8 s",
        "Queued waited for a worker 40 ms",
        "First token a worker read the prompt 260 ms",
        "Answer the rest of the answer 1.5 s",
        "Workspace mine",
        "Key mine key",
        "Attempt 2 run again",
        "Input 501 0.14 EUR 0.00007014 EUR",
        "Cached input 500 0.14 EUR 0.00007 EUR",
        "Output 77 0.42 EUR 0.00003234 EUR",
        "Exact sum 0.00017248 EUR",
        "half to even 0.00017248 EUR",
        "Price version launch:auto",
        "3 more computed, not charged",
    ):
        assert part in text, part


def test_a_cost_that_is_rounded_shows_every_digit_before():
    usage = UsageRecord(prompt_tokens=3, cached_tokens=1, completion_tokens=1, cost_nano=1, loss_nano=0)

    class Odd:
        input_nano, cached_nano, output_nano = 251, 100, 899

    found = cost(usage, Odd)
    assert (found.exact, found.rounded_nano, found.fits) == ("0.000000001501", 2, False)


def test_stages_that_never_came_are_left_out():
    times = {"admitted_ms": 1_000, "settled_ms": 1_100}
    queued = stages(UsageRecord(taken_ms=0, first_token_ms=0, **times))
    assert [(stage.name, stage.took_ms) for stage in queued] == [("Queued", 100), ("Done", None)]
    embedded = stages(UsageRecord(taken_ms=1_020, first_token_ms=0, **times))
    assert [(stage.x, stage.width) for stage in embedded[:-1]] == [(0, 200), (200, 800)]


async def test_an_open_request_is_shown_as_running_until_it_is_recorded(quick_console):
    usage = Usage(quick_console)
    workspace, _ = usage.workspace("mine")
    request_id, keeper = "c0" + "5" * 30, quick_console.services.keeper
    broker = keeper._broker
    job = Job(
        request_id=request_id, submitter="g1", organisation=quick_console.ash.id, workspace=workspace, tier="auto",
        kind=CHAT, deadline_ms=usage.now_ms + DAY_MS, prompt_tokens=10, cost_expected=20, prompt_ids=tuple(range(10)),
        sampling=Sampling(max_tokens=10),
    )  # fmt: skip
    admit_free(broker, job)
    path = f"/o/{quick_console.ash.id}/requests/{request_id}"
    browser = quick_console.as_role("developer")
    page = await browser.get(path)
    assert "Where it is queued" in text_of(page)
    assert "?waits=1" in page.text
    broker.take(WorkerSlot("w1", "auto", 1), 1)
    assert "Running at a worker" in text_of(await browser.get(path))
    assert (await quick_console.as_role("owner", quick_console.birch).get(path)).status_code == 404
    other = quick_console.user("wanda", quick_console.ash, "viewer", workspace=usage.workspace("other")[0])
    assert (await quick_console.browser(other).get(path)).status_code == 404
    gone = path[:-1] + "0"
    assert "It has ended" in text_of(await browser.get(f"{gone}?waits=3"))
    assert (await browser.get(f"{gone}?waits=60")).status_code == 404


async def test_refused_requests_tell_the_rule_and_when_to_come_back(quick_console):
    usage = Usage(quick_console)
    (mine, my_key), (other, _) = usage.workspace("mine"), usage.workspace("other")
    log = quick_console.services.refusals
    await log.append(
        [
            refusal(quick_console, 1, workspace=mine, key_id=my_key),
            refusal(
                quick_console, 2, workspace=other, rule="spend_per_day", limit=5 * 10**9, remaining=12, code="1312"
            ),
            refusal(quick_console, 3, organisation=quick_console.birch.id),
        ]
    )
    path = f"/o/{quick_console.ash.id}/requests/refused"
    browser = quick_console.as_role("viewer")
    text = text_of(await browser.get(path))
    assert "requests per minute key 60 0 7 s 429 1300 mine mine key" in text
    assert "spend per day key 5.00 EUR 0.000000012 EUR 7 s 429 1312 other" in text
    assert "2 refusals" in text
    exported = (await browser.get(f"{path}?format=csv")).text.splitlines()
    assert exported[0].startswith("at_ms,tier,rule,scope,limit,remaining,retry_after_s,status,code")
    assert len(exported) == 3
    one = text_of(await browser.get(f"/o/{quick_console.ash.id}/requests/c0{1:030x}"))
    assert "Rule requests per minute Scope key Limit 60 Remaining 0 Try again after 7 s" in one
    limited = quick_console.browser(quick_console.user("wanda", quick_console.ash, "viewer", workspace=mine))
    assert "1 refusal " in text_of(await limited.get(path))
    assert (await limited.get(f"/o/{quick_console.ash.id}/requests/c0{2:030x}")).status_code == 404
    assert (await browser.get(f"/o/{quick_console.ash.id}/requests/c0{3:030x}")).status_code == 404


async def test_every_role_sees_requests_and_only_of_workspaces_that_it_sees(quick_console):
    usage = Usage(quick_console)
    (mine, my_key), (other, other_key) = usage.workspace("mine"), usage.workspace("other")
    first, second = usage.store(
        usage.event(workspace=mine, key_id=my_key), usage.event(workspace=other, key_id=other_key)
    )
    path = f"/o/{quick_console.ash.id}/requests"
    pages = ("", "/refused", f"/{first.request_id}")
    for role in Role:
        browser = quick_console.as_role(role.value)
        for each in pages:
            assert (await browser.get(path + each)).status_code == 200
        assert ("mine key" in (await browser.get(path)).text) == (role is not Role.BILLING)
        assert ("mine key" in (await browser.get(path + pages[2])).text) == (role is not Role.BILLING)
    limited = quick_console.browser(quick_console.user("wanda", quick_console.ash, "developer", workspace=mine))
    page = await limited.get(path)
    assert first.request_id in page.text
    assert second.request_id not in page.text
    assert "other" not in text_of(page)
    assert second.request_id not in (await limited.get(f"{path}?workspace={other}&format=csv")).text
    assert (await limited.get(f"{path}/{second.request_id}")).status_code == 404
    stranger = quick_console.as_role("owner", quick_console.birch)
    for each in pages:
        assert (await stranger.get(path + each)).status_code == 404


@pytest.mark.parametrize("query", ["", "?tier=auto&outcome=finished", "?outcome=failed"])
async def test_the_page_costs_a_handful_of_queries(console, query):
    usage = Usage(console)
    spread(usage)
    browser = console.as_role("owner")
    with usage.statements() as sent:
        assert (await browser.get(f"/o/{console.ash.id}/requests{query}")).status_code == 200
    assert len(sent) <= QUERIES_MAX


def admit_free(broker, job):
    """Of a tier that costs nothing here."""
    broker.reservations.credit.open(1)
    admission = Admission(
        job=job, key_id="k1", generation=1, prices=(Price("free", 0, 0, 0),), rules=(), output_reserved=10, weight=1,
        queue_wait_ms_max=10**9,
    )  # fmt: skip
    assert isinstance(broker.admit(admission), Admitted)
