"""Limits on their page: which rules hold, where they come from, how far they are used; set and removed."""

import re

from redis.exceptions import ConnectionError as RedisAwayError

from core.meter.refusals import RefusalEvent
from core.queue.rules import RuleKind
from gateway.accounts.limits import LimitTerms, Subject, SubjectKind, list_limits, set_limit
from gateway.accounts.roles import Role
from gateway.accounts.workspaces import default_workspace_of
from tests.admin_world import TIERS
from tests.console.queries import counted
from tests.console.usage_world import Usage
from tests.console.world import text_of

MANAGE = {Role.OWNER, Role.ADMIN}
SPEND, RATE = RuleKind.SPEND_PER_MONTH, RuleKind.REQUESTS_PER_MINUTE


def limit(console, kind, subject_id, rule, value, **terms):
    accounts = console.accounts
    subject, said = Subject(SubjectKind(kind), subject_id), LimitTerms(rule, value, **terms)
    return accounts.do(set_limit, subject, said, within=None, known_tiers=TIERS, ids=accounts.ids).id


def kept(console, kind, subject_id):
    found = console.accounts.see(list_limits, Subject(SubjectKind(kind), subject_id), within=None)
    return {(each.kind, each.tier, each.value, each.hard) for each in found}


def refusal(console, kind, at_ms, limit=60, **changes):
    fields = {
        "request_id": "r1",
        "organisation": console.ash.id,
        "workspace": "w",
        "key_id": "k",
        "route": "/v1/chat/completions",
        "tier": "auto",
        "status": 429,
        "code": "1300",
        "rule": kind.value,
        "scope": "organisation",
        "limit": limit,
        "remaining": 0,
        "at_ms": at_ms,
    }
    return RefusalEvent(**{**fields, **changes})


async def rows_of(browser, path):
    """The file of the table, a dict for each rule."""
    separator = "&" if "?" in path else "?"
    head, *lines = (await browser.get(f"{path}{separator}format=csv")).text.splitlines()
    return [dict(zip(head.split(","), line.split(","), strict=True)) for line in lines]


async def test_every_rule_says_where_it_comes_from_and_how_far_it_is_used(console):
    ash, usage = console.ash, Usage(console)
    await console.services.credit.open_epoch(1)
    workspace, key = usage.workspace("web")
    usage.store(usage.event(ago_ms=0, workspace=workspace, key_id=key, cost_nano=8_000_000_000))
    limit(console, "customer", ash.id, SPEND, 10_000_000_000)
    limit(console, "customer", ash.id, RATE, 10**12)  # looser than the plan: it changes nothing
    limit(console, "organisation", ash.id, RuleKind.CONCURRENCY, 7)
    limit(console, "workspace", workspace, RATE, 30, tier="auto", hard=False)
    limit(console, "key", key, RATE, 5)
    browser = console.as_role("viewer")
    path = f"/o/{ash.id}/limits"
    found = {(row["kind"], row["scope"]): row for row in await rows_of(browser, path)}
    assert {row["source"] for row in found.values()} == {"plan", "customer", "organisation"}
    spend = found["spend_per_month", "organisation"]
    assert (spend["used"], spend["remaining"], spend["window"]) == ("8000000000", "2000000000", "2023-11")
    assert found["requests_per_minute", "organisation"]["source"] == "plan"
    assert found["concurrency", "organisation"]["limit"] == "7"
    page = text_of(await browser.get(path))
    assert "Spending per month organisation · all tiers 8.00 of 10.00 EUR 80.0" in page.replace("\u202f", "")
    assert "your own cap: 1 000 000 000 000" in page.replace("\u202f", " ")
    inside = await rows_of(browser, f"{path}?workspace={workspace}")
    assert [row for row in inside if row["scope"] == "key"] == []
    assert [(row["tier"], row["hard"]) for row in inside if row["scope"] == "workspace"] == [("auto", "False")]
    of_key = await rows_of(browser, f"{path}?key={key}")
    assert [row["limit"] for row in of_key if row["scope"] == "key"] == ["5"]
    assert len(of_key) == len(inside) + 1


async def test_limits_are_set_and_removed(console):
    ash = console.ash
    browser = console.as_role("admin")
    path = f"/o/{ash.id}/limits"
    workspace, key = ash.see(default_workspace_of), ash.new("key_id")
    sent = {
        "customer": {"subject": "customer", "kind": "spend_per_day", "value": "12.50"},
        "workspace": {
            "subject": f"workspace {workspace}",
            "kind": "tokens_per_minute",
            "value": "6 000",
            "tier": "auto",
        },
        "key": {"subject": f"key {key}", "kind": "concurrency", "value": "2", "soft": "true"},
    }
    answers = [await browser.post(path, **fields) for fields in sent.values()]
    assert [each.status_code for each in answers] == [303] * 3
    assert kept(console, "customer", ash.id) == {("spend_per_day", "", 12_500_000_000, True)}
    assert kept(console, "workspace", workspace) == {("tokens_per_minute", "auto", 6000, True)}
    assert kept(console, "key", key) == {("concurrency", "", 2, False)}
    page = await browser.get(f"{path}?key={key}")
    removals = re.findall(r'action="/console(/o/[^"]+/remove)"', page.text)
    assert len(removals) == 3
    back = f"/console{path}?key={key}"
    answers = [await browser.post(each, back=back) for each in removals]
    assert [(each.status_code, each.headers["location"]) for each in answers] == [(303, back)] * 3
    assert (
        kept(console, "customer", ash.id) | kept(console, "workspace", workspace) | kept(console, "key", key) == set()
    )
    elsewhere = await browser.post(path, **sent["customer"], back="https://example.com/")
    assert elsewhere.headers["location"] == "/console"


async def test_what_cannot_be_a_limit_is_told_beside_its_field(quick_console):
    browser = quick_console.as_role("owner")
    path = f"/o/{quick_console.ash.id}/limits"
    wrong = (
        ({"subject": "customer", "kind": "spend_per_day", "value": "lots"}, "value"),
        ({"subject": "customer", "kind": "concurrency", "value": "1.5"}, "value"),
        ({"subject": "customer", "kind": "concurrency", "value": "-1"}, "value"),
        ({"subject": "customer", "kind": "happiness", "value": "1"}, "kind"),
        ({"subject": "customer", "kind": "concurrency", "value": "1", "tier": "no-such"}, "tier"),
        ({"subject": "everybody", "kind": "concurrency", "value": "1"}, "subject"),
        ({"subject": "customer", "kind": "concurrency"}, "value"),
    )
    for fields, param in wrong:
        answer = await browser.client.post(
            f"/console{path}",
            data=fields,
            headers={"hx-request": "true", "x-csrf-token": (await csrf(browser, path))},
        )
        assert (answer.status_code, f'data-param="{param}"' in answer.text) == (422, True), (fields, answer.text)


async def csrf(browser, path):
    return re.search(r'name="csrf-token" content="(\w+)"', (await browser.get(path)).text).group(1)


async def test_what_each_role_may_do(quick_console):
    ash = quick_console.ash
    path = f"/o/{ash.id}/limits"
    for role in Role:
        browser = quick_console.as_role(role.value)
        page = await browser.get(path)
        assert page.status_code == 200, role
        assert ("Set a limit" in text_of(page)) == (role in MANAGE), role
        expected = 303 if role in MANAGE else 403
        for subject in ("customer", f"workspace {ash.new('workspace_id')}", f"key {ash.new('key_id')}"):
            fields = {"subject": subject, "kind": "concurrency", "value": "3"}
            assert (await browser.post(path, **fields)).status_code == expected, (role, subject)
        assert (await browser.post(f"{path}/{ash.new('limit_id')}/remove")).status_code == expected, role
        for subject in ("organisation", "plan development"):
            fields = {"subject": subject, "kind": "concurrency", "value": "3"}
            assert (await browser.post(path, **fields)).status_code == 403, (role, subject)
        override = limit(quick_console, "organisation", ash.id, RuleKind.REQUESTS_PER_SECOND, 9)
        assert (await browser.post(f"{path}/{override}/remove")).status_code == 403, role


async def test_operators_override_a_plan(quick_console):
    ash = quick_console.ash
    operator = quick_console.as_operator()
    path = f"/o/{ash.id}/limits"
    fields = {"subject": "organisation", "kind": "requests_per_minute", "value": "90"}
    assert (await operator.post(path, **fields)).status_code == 303
    assert kept(quick_console, "organisation", ash.id) == {("requests_per_minute", "", 90, True)}
    page = await operator.get(path)
    assert "set by the operator plan: 60" in text_of(page)
    [removal] = re.findall(r'action="/console(/o/[^"]+/remove)"', page.text)
    assert (await operator.post(removal)).status_code == 303
    assert kept(quick_console, "organisation", ash.id) == set()
    [plans] = [row["source"] for row in await rows_of(operator, path) if row["kind"] == "requests_per_minute"]
    assert plans == "plan"


async def test_who_leads_a_workspace_limits_that_one(quick_console):
    ash = quick_console.ash
    workspace = ash.new("workspace_id")
    lead = quick_console.browser(quick_console.user("lead", ash, "admin", workspace=workspace))
    path = f"/o/{ash.id}/limits"
    page = text_of(await lead.get(path))
    assert "the organisation as a whole" not in page
    assert "the organisation: a cap" not in page
    mine = {"subject": f"workspace {workspace}", "kind": "concurrency", "value": "3"}
    assert (await lead.post(path, **mine)).status_code == 303
    for subject in ("customer", f"workspace {ash.see(default_workspace_of)}", f"key {ash.new('key_id')}"):
        assert (await lead.post(path, **{**mine, "subject": subject})).status_code == 403, subject
    assert (await lead.get(f"{path}?workspace={ash.see(default_workspace_of)}")).status_code == 404
    assert (await lead.get(f"{path}?key={ash.new('key_id')}")).status_code == 404


async def test_another_organisations_limits_do_not_exist(quick_console):
    ash, birch = quick_console.ash, quick_console.birch
    browser = quick_console.as_role("owner")
    path = f"/o/{ash.id}/limits"
    cap = limit(quick_console, "customer", birch.id, SPEND, 5)
    answers = [
        await browser.get(f"/o/{birch.id}/limits"),
        await browser.get(f"{path}?workspace={birch.new('workspace_id')}"),
        await browser.get(f"{path}?key={birch.new('key_id')}"),
        await browser.post(path, subject=f"workspace {birch.new('workspace_id')}", kind="concurrency", value="1"),
        await browser.post(path, subject=f"key {birch.new('key_id')}", kind="concurrency", value="1"),
        await browser.post(f"{path}/{birch.new('limit_id')}/remove"),
        await browser.post(f"{path}/{cap}/remove"),
        await quick_console.as_operator().post(f"{path}/{cap}/remove"),
        await browser.post(f"{path}/no-such/remove"),
    ]
    assert [each.status_code for each in answers] == [404] * len(answers)


async def test_each_rule_tells_how_often_it_refused(quick_console):
    ash, clock = quick_console.ash, quick_console.accounts.clock
    workspace = ash.new("workspace_id")
    limit(quick_console, "workspace", workspace, RATE, 5)
    now_ms = clock.now_ms()
    await quick_console.services.refusals.append(
        [
            refusal(quick_console, RATE, now_ms, left_out=40),
            refusal(quick_console, RATE, now_ms, scope="workspace", workspace=workspace, limit=5),
            refusal(quick_console, RuleKind.CONCURRENCY, now_ms, organisation=quick_console.birch.id),
            refusal(quick_console, SPEND, now_ms, rule="", scope=""),
        ]
    )
    path = f"/o/{ash.id}/limits"
    rows = await rows_of(quick_console.as_role("viewer"), f"{path}?workspace={workspace}")
    assert {(row["kind"], row["scope"]): row["refused"] for row in rows if row["refused"] != "0"} == {
        ("requests_per_minute", "organisation"): "41",
        ("requests_per_minute", "workspace"): "1",
    }
    lead = quick_console.browser(quick_console.user("lead", ash, "admin", workspace=workspace))
    rows = await rows_of(lead, path)
    assert sum(int(row["refused"]) for row in rows) == 1, "what others were refused is not for him"


async def test_the_page_stands_while_redis_is_away(quick_console, monkeypatch):
    async def away(_rules):
        raise RedisAwayError("gone")

    monkeypatch.setattr(quick_console.services.counters, "states", away)
    page = await quick_console.as_role("viewer").get(f"/o/{quick_console.ash.id}/limits")
    assert page.status_code == 200
    assert "They hold all the same." in text_of(page)
    assert "Requests per minute" in text_of(page)


async def test_the_page_asks_a_handful_of_questions(console):
    browser, ash = console.as_role("owner"), console.ash
    await console.services.credit.open_epoch(1)
    limit(console, "customer", ash.id, SPEND, 10**10)
    key = ash.new("key_id")
    path = f"/o/{ash.id}/limits?key={key}"
    counts = []
    for more in (0, 20):
        for _ in range(more):
            ash.new("key_id")
        with counted(console.accounts.database) as statements:
            assert (await browser.get(path)).status_code == 200
        counts.append(len(statements))
    with counted(console.accounts.database) as statements:
        again = await browser.get(path, headers={"hx-request": "true", "hx-trigger": "limits-poll"})
    assert again.status_code == 200
    assert len(statements) < counts[1] == counts[0] <= 13, "what is counted already is not asked of SQL again"
