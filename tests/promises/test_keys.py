"""L3: revocation. A key that ends admits nothing more on any gateway, and its open streams end."""

import asyncio
import time

import pytest

from tests.promises.callers import CHAT, LONG, all_begun, body, chat, heard_until, load, streams
from tests.promises.platform import FAULTY

LOOPS = 6


def now_ms():
    return time.time_ns() // 10**6


def revoke(platform, tenant):
    platform.do("keys", "revoke", tenant.key_id)


def suspend(platform, tenant):
    platform.do("orgs", "suspend", tenant.id)


def archive(platform, tenant):
    ((workspace,),) = platform.rows("SELECT workspace_id FROM api_keys WHERE id = :id", id=tenant.key_id)
    platform.do("workspaces", "archive", workspace)


@pytest.mark.parametrize("ends", [revoke, suspend, archive])
def test_what_ends_a_key_ends_its_streams_and_admits_nothing_more(platform, full, figures, ends):
    count, goes_on_s = (32, 5) if full else (10, 0.5)  # one tenant may have 36 of 48 slots
    owner = platform.tenant("revoked", "100")
    platform.do("workspaces", "create", "drill", "--org", owner.id)
    tenant = platform.key(owner.id, "--workspace", "drill")

    async def run():
        async with (
            platform.client(tenant, connections=count + LOOPS) as client,
            streams(client, count, **chat(LONG, FAULTY, max_tokens=1_500)) as (heard, tasks),
            load(client, LOOPS) as made,
        ):
            await all_begun(heard, tasks)
            await heard_until(lambda: made.statuses()[200] > LOOPS)
            await asyncio.to_thread(ends, platform, tenant)
            ended_ms = now_ms()
            await asyncio.gather(*tasks)
            streams_s = (now_ms() - ended_ms) / 1_000
            await heard_until(lambda: made.statuses(ended_ms)[401] > LOOPS)
            await asyncio.sleep(goes_on_s)
        return heard, made, ended_ms, streams_s

    heard, made, ended_ms, streams_s = asyncio.run(run())
    assert {(each.status, each.finish_reason) for each in heard} == {(200, "error")}
    assert set(made.statuses(ended_ms)) == {401}
    platform.until_idle()
    records = platform.records(owner)
    assert {records[each.request_id].outcome for each in heard} == {"cancelled"}
    last_ms = max(row.admitted_ms for row in records.values())
    assert last_ms <= ended_ms + (1_000 if full else 0)
    assert made.served() <= set(records)
    platform.check_books()
    figures[f"L3 {ends.__name__} {platform.backend}"] = {
        "streams ended": count,
        "admitted later": sum(row.admitted_ms > ended_ms for row in records.values()),
        "last stream ended after s": round(streams_s, 2),
    }


def test_two_secrets_work_while_their_overlap_lasts(platform, figures):
    old = platform.tenant("rotated", "100")
    overlap_s = 4
    made = platform.do("keys", "rotate", old.key_id, "--overlap-s", str(overlap_s))
    platform.secrets.append(made["key"])
    assert made["id"] == old.key_id

    def overlap_ms():
        found = platform.do("keys", "list", "--org", old.id)["keys"]
        return next(key["overlap_ms"] for key in found if key["id"] == old.key_id)

    async def run():
        until_ms = await asyncio.to_thread(overlap_ms)
        asked = []
        async with platform.client(old) as client:
            new = {"authorization": f"Bearer {made['key']}"}
            assert (await client.post(CHAT, json=body(), headers=new)).status_code == 200
            async with asyncio.timeout(60):
                while not asked or asked[-1][1] == 200:
                    sent_ms = now_ms()
                    asked.append((sent_ms, (await client.post(CHAT, json=body())).status_code))
            later = [(await client.post(CHAT, json=body())).status_code for _ in range(12)]
            assert (await client.post(CHAT, json=body(), headers=new)).status_code == 200
        return until_ms, asked, later

    until_ms, asked, later = asyncio.run(run())
    assert len(asked) > 1
    assert all(sent_ms < until_ms for sent_ms, _ in asked[:-1])
    assert asked[-1][1] == 401
    assert set(later) == {401}
    figures[f"L3 overlap {platform.backend}"] = {"served by the old secret": len(asked) - 1, "after its end": 0}


def test_a_key_beyond_its_terms_is_refused(platform):
    """For another tier, from another address, or only for reading; expired, which ends its streams, too."""
    owner = platform.tenant("terms", "100")
    keys = {
        "tier": platform.key(owner.id, "--tier", FAULTY),
        "address": platform.key(owner.id, "--network", "10.0.0.0/8"),
        "scope": platform.key(owner.id, "--scope", "usage:read"),
    }
    expires_s = int(time.time()) + 8
    keys["expires"] = platform.key(owner.id, "--expires", str(expires_s))

    async def status(name):
        async with platform.client(keys[name]) as client:
            return (await client.post(CHAT, json=body())).status_code

    async def run():
        assert [await status(name) for name in ("tier", "address", "scope")] == [403, 403, 403]
        long = chat(LONG, FAULTY, max_tokens=1_500)
        async with platform.client(keys["expires"]) as client, streams(client, 3, **long) as (heard, tasks):
            await all_begun(heard, tasks)
            await asyncio.gather(*tasks)
        assert now_ms() >= expires_s * 1_000
        assert await status("expires") == 401
        return heard

    heard = asyncio.run(run())
    assert {(each.status, each.finish_reason) for each in heard} == {(200, "error")}
    platform.until_idle()
    records = platform.records(owner)
    assert {records[each.request_id].outcome for each in heard} == {"cancelled"}
