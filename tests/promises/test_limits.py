"""L1: accurate limits, counted once by all gateways. L2: each refusal and GET /v1/limits say what bounds a key."""

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections import Counter

from core.queue.rules import CALENDAR, RuleKind
from gateway.accounts.limits import LimitTerms, Subject, SubjectKind, remove_limit, set_limit
from tests.promises.callers import (
    CHAT,
    LONG,
    all_begun,
    ask,
    ask_many,
    body,
    chat,
    heard_until,
    load,
    refused_by,
    statuses,
    streams,
)
from tests.promises.platform import CENT_NANO, FAULTY, NARROW, TINY, UNIT_NANO

SCOPES = ("organisation", "workspace", "key")
SPENDING = {RuleKind.SPEND_PER_DAY, RuleKind.SPEND_PER_MONTH}


def put(platform, subject, *terms):
    """Limits at once, as `tramontane limits set` does one by one; their ids."""
    did = platform.hands()
    told, ids = [], []
    with platform.environment():
        with did.changing() as session:
            for each in terms:
                change = set_limit(
                    session,
                    subject,
                    each,
                    within=None,
                    known_tiers=[TINY, FAULTY],
                    actor=did.actor,
                    clock=did.clock,
                    ids=did.ids,
                )
                told += change.publish
                ids.append(change.id)
        did.publish(told)
    return ids


def take_away(platform, limit_id):
    did = platform.hands()
    with platform.environment():
        with did.changing() as session:
            change = remove_limit(session, limit_id, within=None, actor=did.actor, clock=did.clock)
        did.publish(change.publish)


def subjects(platform, tenant):
    ((workspace,),) = platform.rows("SELECT workspace_id FROM api_keys WHERE id = :id", id=tenant.key_id)
    return {
        "organisation": Subject(SubjectKind.ORGANISATION, tenant.id),
        "workspace": Subject(SubjectKind.WORKSPACE, workspace),
        "key": Subject(SubjectKind.KEY, tenant.key_id),
    }


def of_key(tenant):
    return Subject(SubjectKind.KEY, tenant.key_id)


def fullest(admitted_ms, window_ms):
    """The most that any window of this length holds; the moments come in order."""
    return max(i - bisect_right(admitted_ms, at_ms - window_ms) for i, at_ms in enumerate(admitted_ms, start=1))


def test_requests_are_counted_once_by_all_gateways(platform, full, figures):
    """At ten times the rate."""
    kind, limit, window_ms, offered_s = (
        (RuleKind.REQUESTS_PER_MINUTE, 600, 60_000, 250) if full else (RuleKind.REQUESTS_PER_SECOND, 8, 1_000, 4)
    )
    tenant = platform.tenant("rates", "1000")
    put(platform, of_key(tenant), LimitTerms(kind, limit))
    before = platform.answers_by_gateway()
    spacing_s = window_ms / 1_000 / limit / 10

    async def run():
        async with platform.client(tenant, connections=96, kept=False) as client:
            began_s, answers = time.monotonic(), []
            async with asyncio.TaskGroup() as group:
                while (now_s := time.monotonic()) < began_s + offered_s:
                    answers.append(group.create_task(client.post(CHAT, json=body())))
                    due_s = began_s + len(answers) * spacing_s
                    await asyncio.sleep(max(0.0, due_s - now_s))
            return [task.result() for task in answers]

    answers = asyncio.run(run())
    counts = statuses(answers)
    assert set(counts) == {200, 429}
    assert {refused_by(answer)["rule"] for answer in answers if answer.status_code == 429} == {kind.value}
    admitted_ms = [row.admitted_ms for row in platform.records(tenant).values()]
    assert len(admitted_ms) == counts[200] >= limit
    assert fullest(admitted_ms, window_ms) <= limit
    busy = {who: after - before[who] for who, after in platform.answers_by_gateway().items() if after > before[who]}
    assert len(busy) > 1
    if full:
        figures[f"L1 requests {platform.backend}"] = measured(admitted_ms, limit, window_ms, len(answers), len(busy))


def measured(admitted_ms, limit, window_ms, offered, gateways):
    """Minutes from the first admission on; and the fullest of all windows of 60 s."""
    began_ms = admitted_ms[0]
    minutes = [
        bisect_left(admitted_ms, began_ms + (i + 1) * window_ms) - bisect_left(admitted_ms, began_ms + i * window_ms)
        for i in range((admitted_ms[-1] - began_ms) // window_ms)
    ]
    assert len(minutes) >= 3
    assert all(abs(minute - limit) <= limit / 100 for minute in minutes), minutes
    return {
        "offered": offered,
        "gateways": gateways,
        "limit": limit,
        "by minute": minutes,
        "fullest 60 s": fullest(admitted_ms, window_ms),
    }


def test_tokens_per_minute_pass_their_limit_by_a_slice_for_each_stream_at_most(platform, full, figures):
    limit, parallel, slice_tokens = 4_000, 64 if full else 12, 1_024
    tenant = platform.tenant("bucket", "1000")
    put(platform, of_key(tenant), LimitTerms(RuleKind.TOKENS_PER_MINUTE, limit))
    asked = chat("[[echo:pace=800]] [[echo:tokens=1700]]", FAULTY, max_tokens=1_800)

    async def run():
        async with platform.client(tenant) as client, streams(client, parallel, **asked) as (heard, tasks):
            await asyncio.gather(*tasks)
            return heard

    heard = asyncio.run(run())
    refused = [each.error for each in heard if each.status == 429]
    assert {each["x_tramontane"]["refused_by"]["rule"] for each in refused} == {"tokens_per_minute"}
    records = list(platform.records(tenant).values())
    assert len(records) + len(refused) == parallel
    assert all(each.finish_reason == "stop" for each in heard if each.status == 200), "no stream is cut by it"
    used = sum(row.prompt_tokens + row.completion_tokens for row in records)
    assert used > limit, "streams that run go on beyond it"
    for row in records:
        open_then = [r for r in records if r.admitted_ms <= row.admitted_ms]
        passed_ms = row.admitted_ms - records[0].admitted_ms
        admitted = sum(r.prompt_tokens + slice_tokens for r in open_then)
        assert admitted <= limit + limit * (passed_ms + 1) / 60_000
    span_ms = records[-1].settled_ms - records[0].admitted_ms
    excess = used - limit - limit * span_ms / 60_000
    assert excess <= slice_tokens * len(records)
    figures[f"L1 tokens per minute {platform.backend}"] = {
        "limit": limit,
        "streams served": len(records),
        "tokens above it": round(max(0.0, excess)),
        "one slice each": slice_tokens * len(records),
    }


def test_caps_of_a_day_and_a_month_are_exact(platform, full, figures):
    parallel = 400 if full else 40
    served = {}
    for kind, value, status in (
        (RuleKind.SPEND_PER_DAY, 10 * CENT_NANO, 402),
        (RuleKind.SPEND_PER_MONTH, 10 * CENT_NANO, 402),
        (RuleKind.TOKENS_PER_MONTH, 10 * 14, 429),  # ten tokens are asked with, four answered
    ):
        tenant = platform.tenant("capped", "1000")
        put(platform, of_key(tenant), LimitTerms(kind, value))

        async def run(tenant=tenant):
            async with platform.client(tenant) as client:
                return await asyncio.gather(*(client.post(CHAT, json=body()) for _ in range(parallel)))

        answers = asyncio.run(run())
        assert statuses(answers) == {200: 10, status: parallel - 10}
        refused = next(answer for answer in answers if answer.status_code == status)
        assert refused_by(refused) | {"retry_after_ms": 0} == {
            "rule": kind.value,
            "scope": "key",
            "limit": value,
            "remaining": 0,
            "retry_after_ms": 0,
        }
        served[kind.value] = 10
    figures[f"L1 caps {platform.backend}"] = {"asked each": parallel, "served": served}


def test_concurrency_is_exact(platform, full, figures):
    waves, parallel, limit = (10, 100, 5) if full else (2, 20, 5)
    tenant = platform.tenant("crowd", "1000")
    put(platform, of_key(tenant), LimitTerms(RuleKind.CONCURRENCY, limit))

    async def run():
        async with platform.client(tenant, connections=parallel) as client:
            for _ in range(waves):
                async with streams(client, parallel, **chat(LONG, FAULTY)) as (heard, tasks):
                    await all_begun(heard, tasks)
                    assert Counter(each.status for each in heard) == {200: limit, 429: parallel - limit}
                await heard_until(lambda: platform.open_requests() == 0)

    asyncio.run(run())
    figures[f"L1 concurrency {platform.backend}"] = {"limit": limit, "waves": waves, "asked each": parallel}


SMALL = {
    RuleKind.REQUESTS_PER_SECOND: 1,
    RuleKind.REQUESTS_PER_MINUTE: 1,
    RuleKind.TOKENS_PER_MINUTE: 14,
    RuleKind.TOKENS_PER_MONTH: 14,
    RuleKind.CONCURRENCY: 0,
    RuleKind.SPEND_PER_DAY: CENT_NANO,
    RuleKind.SPEND_PER_MONTH: CENT_NANO,
}


async def until_refused(client):
    async with asyncio.timeout(60):
        while True:
            for answer in await asyncio.gather(*(client.post(CHAT, json=body()) for _ in range(4))):
                if answer.status_code != 200:
                    return answer


def check_refusal(answer, kind, scope, limit, tier):
    said = refused_by(answer)
    assert (said["rule"], said["scope"], said["limit"], said.get("tier", "")) == (kind.value, scope, limit, tier)
    assert 0 <= said["remaining"] <= limit
    assert all(part in answer.json()["message"] for part in (kind.value, scope, tier, f"limit {limit}", "remaining"))
    spends = kind in SPENDING
    assert answer.status_code == (402 if spends else 429)
    assert answer.json()["code"] == ("1312" if spends else "1300")
    if spends:
        assert said["retry_after_ms"] is None
        assert "retry-after" not in answer.headers
    else:
        assert said["retry_after_ms"] > 0
        assert int(answer.headers["retry-after"]) == -(-said["retry_after_ms"] // 1_000)


def test_each_refusal_names_what_refused(platform, figures):
    """Every kind of limit on organisation, workspace and key, for all tiers and for one."""
    seen = 0
    for tier in ("", TINY):
        tenant = platform.tenant("refused", "1000")
        found = subjects(platform, tenant)

        async def run(tier=tier, tenant=tenant, found=found):
            nonlocal seen
            async with platform.client(tenant) as client:
                for scope in SCOPES:
                    for kind, value in SMALL.items():
                        terms = LimitTerms(kind, value, tier)
                        (limit_id,) = await asyncio.to_thread(put, platform, found[scope], terms)
                        check_refusal(await until_refused(client), kind, scope, value, tier)
                        await asyncio.to_thread(take_away, platform, limit_id)
                        seen += 1
                assert (await ask(client)).status_code == 200

        asyncio.run(run())
    figures[f"L2 refusals {platform.backend}"] = {"kinds, scopes and tiers": seen}


def test_it_may_be_tried_again_when_the_refusal_says(platform):
    tenant = platform.tenant("again", "1000")
    put(platform, of_key(tenant), LimitTerms(RuleKind.REQUESTS_PER_SECOND, 2))

    async def run():
        async with platform.client(tenant) as client:
            for _ in range(3):
                refused = await until_refused(client)
                await asyncio.sleep(refused_by(refused)["retry_after_ms"] / 1_000)
                assert (await client.post(CHAT, json=body())).status_code == 200

    asyncio.run(run())


def test_money_and_full_queues_are_explained_too(platform):
    tenant = platform.tenant("poor", "0.02")

    async def run():
        async with platform.client(tenant) as client:
            # What eight long answers reserve takes most of the credit for as long as they run.
            dear = {"model": FAULTY, "content": LONG, "max_tokens": 1_500, "n": 8}
            async with streams(client, 1, **chat(**dear)) as (heard, tasks):
                await all_begun(heard, tasks)
                answer = await client.post(CHAT, json=body())
                said = refused_by(answer)
                assert (answer.status_code, answer.json()["code"]) == (429, "1311")
                assert (said["rule"], said["limit"]) == ("credit", CENT_NANO)
                assert int(answer.headers["retry-after"]) >= 1
                assert all(word in answer.json()["message"] for word in ("needs", "balance", "reserve"))
            await heard_until(lambda: platform.open_requests() == 0)
            narrow = chat(LONG, NARROW, max_tokens=50)
            async with streams(client, 1, **narrow) as (heard, tasks):
                await all_begun(heard, tasks)  # it has the only slot
                async with streams(client, 1, **narrow):
                    await heard_until(lambda: platform.open_requests() == 2)
                    answer = await client.post(CHAT, json=narrow)
                    assert (answer.status_code, answer.json()["code"]) == (429, "3505")
                    said = refused_by(answer)
                    assert (said["rule"], said["scope"], said["limit"]) == ("queue_jobs", "tier", 1)
                    assert said["remaining"] == 0
                    assert int(answer.headers["retry-after"]) >= 1

    platform.until_idle()
    asyncio.run(run())


def test_limits_shows_all_that_apply_to_a_key(platform, figures):
    tenant = platform.tenant("shown", "1000")
    values = {
        RuleKind.REQUESTS_PER_SECOND: 50,
        RuleKind.REQUESTS_PER_MINUTE: 600,
        RuleKind.TOKENS_PER_MINUTE: 60_000,
        RuleKind.TOKENS_PER_MONTH: 10**6,
        RuleKind.CONCURRENCY: 40,
        RuleKind.SPEND_PER_DAY: UNIT_NANO,
        RuleKind.SPEND_PER_MONTH: 2 * UNIT_NANO,
    }
    expected = {}
    for scope, subject in subjects(platform, tenant).items():
        terms = [LimitTerms(kind, value, tier) for kind, value in values.items() for tier in ("", TINY)]
        terms.append(LimitTerms(RuleKind.SPEND_PER_MONTH, 5 * CENT_NANO, hard=False))
        put(platform, subject, *terms)
        for each in terms:
            expected[(each.kind.value, scope, subject.id, each.tier or None, each.hard)] = each.value

    async def run():
        async with platform.client(tenant) as client:
            assert statuses(await ask_many(client, 6)) == {200: 6}
            return (await client.get("/v1/limits")).json()["data"]

    shown = asyncio.run(run())
    found = {(one["rule"], one["scope"], one["scope_id"], one["tier"], one["hard"]): one for one in shown}
    assert {what: one["value"] for what, one in found.items()} == expected
    used = {"tokens_per_month": 6 * 14, "spend_per_day": 6 * CENT_NANO, "spend_per_month": 6 * CENT_NANO}
    for (kind, *_, hard), one in found.items():
        assert one["used"] + one["remaining"] == one["value"]
        assert hard or one["remaining"] < 0
        if RuleKind(kind) in CALENDAR:
            assert one["used"] == used[kind]
            assert one["window"]
    figures[f"L2 GET /v1/limits {platform.backend}"] = {"rules": len(found)}


def test_a_limit_that_is_set_counts_at_once_on_every_gateway(platform):
    tenant = platform.tenant("sudden", "1000")

    async def run():
        async with platform.client(tenant) as client, load(client, 6) as made:
            await heard_until(lambda: made.statuses()[200] > 20)
            terms = LimitTerms(RuleKind.CONCURRENCY, 0)
            await asyncio.to_thread(put, platform, of_key(tenant), terms)
            set_ms = time.time_ns() // 10**6
            await heard_until(lambda: made.statuses(set_ms)[429] > 20)
        return made, set_ms

    made, set_ms = asyncio.run(run())
    assert set(made.statuses(set_ms)) == {429}
    assert max(row.admitted_ms for row in platform.records(tenant).values()) <= set_ms
