"""The Overview: figures of today, beside last week; what who sees; live parts, read once for all who see the same."""

import asyncio
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from billing.accounts import Available
from billing.today import today, week_before
from billing.usage import UsageLine
from core.meter.credit import Level
from core.meter.refusals import RefusalEvent
from gateway.accounts.access import OPERATOR
from gateway.accounts.members import remove_member
from gateway.accounts.roles import Role
from gateway.console.figures import balance
from gateway.console.live import event
from tests.console.usage_world import Usage
from tests.console.world import text_of

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
QUERIES_MAX = 22


def refusal(console, number=1, **changes):
    fields = {
        "request_id": f"c0{number:030x}",
        "organisation": console.ash.id,
        "workspace": "w1",
        "key_id": "k1",
        "route": "/v1/chat/completions",
        "tier": "auto",
        "status": 429,
        "code": "1300",
        "rule": "requests_per_minute",
        "scope": "key",
        "limit": 60,
        "remaining": 0,
        "at_ms": console.accounts.clock.now_ms(),
        "retry_after_s": 7,
    }
    return RefusalEvent(**{**fields, **changes})


async def test_an_organisation_without_requests_is_led_to_its_first_one(quick_console):
    owner, path = quick_console.as_role("owner"), f"/o/{quick_console.ash.id}"
    page = await owner.get(path)
    assert "No request has been made yet" in text_of(page)
    assert f'href="/console{path}/start"' in page.text
    assert f'href="/console{path}/keys"' in page.text
    assert "Create an API key" not in text_of(await quick_console.as_role("viewer").get(path))


async def test_today_is_told_beside_the_same_time_last_week(console):
    usage = Usage(console)
    usage.store(
        usage.event(cost_nano=2_500_000_000, prompt_tokens=100, completion_tokens=30),
        usage.event(60_000, cost_nano=500_000_000, outcome="failed", prompt_tokens=0, completion_tokens=0),
        usage.event(WEEK_MS + 3_600_000, cost_nano=2_000_000_000),
        usage.event(WEEK_MS - 1_500_000, cost_nano=9_000_000_000),
        usage.event(tenant=console.birch, cost_nano=7_000_000_000),
    )
    page = await console.as_role("owner").get(f"/o/{console.ash.id}")
    text = text_of(page)
    assert "Spend 3.00 EUR ▲ 50.0 % against 2.00" in text, "later hours of last week do not count"
    assert "Requests 2 ▲ 100.0 % against 1" in text
    assert "Tokens 130 100 in, 30 out" in text
    assert "Failed 50.0 % last week: 0.0 %" in text
    assert "Europe/Paris" in text
    assert "Balance" in text
    assert "Balance" not in text_of(await console.as_role("developer").get(f"/o/{console.ash.id}"))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe"])
def test_the_same_weekday_ends_at_the_time_that_the_clocks_show(zone):
    for day in ("2026-03-31", "2026-10-26", "2026-11-02", "2026-04-06"):  # a week after changes of the clock
        now = datetime.fromisoformat(f"{day}T09:20:00").replace(tzinfo=ZoneInfo(zone))
        now_ms = round(now.timestamp()) * 1_000
        window = week_before(zone, now_ms)
        until = datetime.fromtimestamp(window.end_ms / 1_000, UTC).astimezone(ZoneInfo(zone))
        assert (until.weekday(), until.time()) == (now.weekday(), now.time())
        assert (now.date() - until.date()).days == 7
        assert today(zone, now_ms).id == day


def line(start_ms, cost_nano):
    return UsageLine(start_ms, start_ms + DAY_MS, None, None, "auto", 1, 0, 1, 1, 0, cost_nano, 0)


@pytest.mark.parametrize(
    ("posted_nano", "spent_nano", "low"), [(70, 10, False), (20, 10, True), (0, 0, True), (1, 0, False)]
)
def test_a_balance_is_low_when_it_lasts_less_than_three_days(posted_nano, spent_nano, low):
    lines = [line(day * DAY_MS, spent_nano) for day in range(14)]
    found = balance(Available(posted_nano, 5, 0), Level(1, 5, 3), lines, 14 * DAY_MS)
    assert (found.available_nano, found.reserved_nano, found.low) == (posted_nano, 3, low)
    assert found.lasts_days == (posted_nano / spent_nano if spent_nano else None)


async def test_a_low_balance_is_said_and_leads_to_money(quick_console):
    usage = Usage(quick_console)
    usage.store(usage.event(cost_nano=3_900_000_000_000_000, ago_ms=DAY_MS), usage.event())
    page = await quick_console.as_role("owner").get(f"/o/{quick_console.ash.id}")
    assert "The balance runs low" in text_of(page), "all but the plan's credit is lent to Redis, which is empty here"
    assert "Top up" in text_of(page)


async def test_who_sees_one_workspace_is_told_of_that_one(quick_console):
    usage = Usage(quick_console)
    (mine, my_key), (other, other_key) = usage.workspace("mine"), usage.workspace("other")
    usage.store(
        usage.event(workspace=mine, key_id=my_key, cost_nano=1_000_000_000),
        usage.event(workspace=other, key_id=other_key, cost_nano=5_000_000_000),
    )
    log = quick_console.services.refusals
    await log.append(
        [refusal(quick_console, 1, workspace=mine), refusal(quick_console, 2, workspace=other, tier="code")]
    )
    browser = quick_console.browser(quick_console.user("wanda", quick_console.ash, "developer", workspace=mine))
    text = text_of(await browser.get(f"/o/{quick_console.ash.id}"))
    assert "Spend 1.00 EUR" in text
    assert "requests per minute 429" in text
    assert "code" not in text.split("Newest refusals")[1]


async def test_every_role_sees_the_overview_and_nobody_of_another_organisation(quick_console):
    usage = Usage(quick_console)
    usage.store(usage.event())
    path = f"/o/{quick_console.ash.id}"
    for role in Role:
        page = await quick_console.as_role(role.value).get(path)
        assert page.status_code == 200
        assert ("Reserved by open requests" in text_of(page)) == (role.value in {"owner", "admin", "billing"})
    stranger = quick_console.as_role("owner", quick_console.birch)
    for each in (path, f"{path}/live"):
        assert (await stranger.get(each)).status_code == 404
        assert (await quick_console.browser().get(each)).status_code == 303


async def test_the_page_costs_a_handful_of_queries(console):
    usage = Usage(console)
    usage.store(*(usage.event(number * 600_000) for number in range(300)))
    browser = console.as_role("owner")
    with usage.statements() as sent:
        assert (await browser.get(f"/o/{console.ash.id}")).status_code == 200
    assert len(sent) <= QUERIES_MAX


class Streams:
    """Live pages that are being read; `sent` counts the parts that they were sent."""

    def __init__(self, console, monkeypatch) -> None:
        self.console = console
        self.sent = 0
        self._more = asyncio.Event()
        self.tasks = []
        monkeypatch.setattr("gateway.console.live.EVERY_S", 0.25)
        monkeypatch.setattr("gateway.console.live.event", self._event)

    def open(self, browser):
        self.tasks.append(asyncio.create_task(browser.get(f"/o/{self.console.ash.id}/live")))

    async def until(self, sent):
        async with asyncio.timeout(30):
            while self.sent < sent:
                self._more.clear()
                await self._more.wait()

    async def texts(self):
        """What each was sent, after the gateway began to stop."""
        self.console.services.lifecycle.draining = True
        answers = await asyncio.gather(*self.tasks)
        return [answer.text for answer in answers]

    def _event(self, name, text):
        self.sent += 1
        self._more.set()
        return event(name, text)


async def test_live_parts_are_read_once_for_all_who_see_the_same(quick_console, monkeypatch):
    usage = Usage(quick_console)
    mine, my_key = usage.workspace("mine")
    usage.store(usage.event(workspace=mine, key_id=my_key, cost_nano=1_000_000_000), usage.event(cost_nano=2))
    some = quick_console.browser(quick_console.user("wanda", quick_console.ash, "viewer", workspace=mine))
    streams = Streams(quick_console, monkeypatch)
    with usage.statements() as sent:
        for browser in (quick_console.as_role("viewer"), quick_console.as_role("owner"), some):
            streams.open(browser)
        await streams.until(9)
    assert len([each for each in sent if "FROM usage_records" in each]) == 2, "one for all, one for some workspaces"
    usage.store(usage.event(cost_nano=4_000_000_000, tier="code"))
    quick_console.accounts.clock.advance(2_000)
    await streams.until(13)
    all_seeing, owner, limited = await streams.texts()
    assert all_seeing == owner
    assert "5.00" in all_seeing
    assert "code" in all_seeing
    assert "code" not in limited
    assert all_seeing.count("event: tiles") == 2, "what has not changed is not sent again"
    assert limited.count("event: tiles") == 1


async def test_an_empty_page_comes_alive_with_the_first_request(quick_console, monkeypatch):
    usage = Usage(quick_console)
    streams = Streams(quick_console, monkeypatch)
    streams.open(quick_console.as_role("viewer"))
    usage.store(usage.event())
    await streams.until(3)
    (text,) = await streams.texts()
    assert "event: begun" in text


async def test_a_stream_ends_for_whoever_may_no_longer(quick_console, monkeypatch):
    usage = Usage(quick_console)
    usage.store(usage.event())
    viewer = quick_console.user("vera", quick_console.ash, "viewer")
    streams = Streams(quick_console, monkeypatch)
    streams.open(quick_console.browser(viewer))
    await streams.until(3)
    quick_console.accounts.do(remove_member, viewer, quick_console.ash.id, access=OPERATOR)
    quick_console.accounts.clock.advance(10_000)
    async with asyncio.timeout(30):
        answer = await streams.tasks[0]
    assert answer.status_code == 200
