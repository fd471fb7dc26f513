"""W5, W6: what Redis forgets cannot be spent again. Redis is killed under load and the end of its append-only file cut
off; or it is wiped.
"""

import asyncio
import os

from billing.treasury import Treasury, TreasurySettings
from cli.state import read_state
from core.db import connect_database
from core.meter.credit_redis import RedisCreditStore
from core.redis import connect
from core.settings import DEVELOPMENT_CELL
from tests.e2e.installation import until
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
    statuses,
    streams,
)
from tests.promises.platform import CENT_NANO, FAULTY, UNIT_NANO

LOOPS = 4


async def with_treasury(platform, work, settings=None):
    """What the collector's process does after a minute or a quarter of an hour, now."""
    did = platform.hands()
    database = connect_database(platform.database_url)
    client = connect(read_state(platform.home).redis_url, 10.0)
    store = RedisCreditStore(client, DEVELOPMENT_CELL)
    try:
        return await work(Treasury(database, store, did.clock, did.ids, settings))
    finally:
        await store.close()
        await client.aclose()
        database.close()


def charged(platform, *tenants):
    """Nano-units by organisation; each answer is charged once at most, and nobody was given more than was paid in."""
    found = {}
    for tenant in tenants:
        found[tenant.id] = sum(row.cost_nano for row in platform.records(tenant).values())
        posted, held = platform.account(tenant)
        assert posted >= 0
        assert 0 <= held <= posted
        paid_in = sum(int(row.amount_nano) for row in paid(platform, tenant))
        assert posted == paid_in - found[tenant.id]
    return found


def paid(platform, tenant):
    return platform.rows("SELECT amount_nano FROM grants WHERE organisation = :id", id=tenant.id)


def serves_again(platform):
    """By itself, a newcomer first of all."""
    tenant = platform.tenant("newcomer", "1.00")

    async def run():
        async with platform.client(tenant) as client:
            return (await ask(client)).status_code

    assert asyncio.run(run()) == 200


def spend_all(platform, tenant, *, bound):
    """Ask until the credit is used up; how many were served."""

    async def run():
        async with platform.client(tenant) as client:
            served = 0
            while True:
                counts = statuses(await ask_many(client, 20, seed=served))
                served += counts[200]
                assert served <= bound
                if counts[402]:
                    assert set(counts) <= {200, 402}
                    return served

    return asyncio.run(run())


def test_a_cut_append_only_file_gives_no_credit_back(platform, full, figures):
    rounds = 5 if full else 1
    lost = 0
    for _ in range(rounds):
        spender, returner = platform.tenant("spender", "1.00"), platform.tenant("returner", "1.00")
        bystander = platform.tenant("bystander", "1000")
        lost += crash(platform, spender, returner, bystander)
    figures[f"W5 {platform.backend}"] = {
        "restarts": rounds,
        "answers forgotten, not charged": lost,
        "charged twice": 0,
        "charged above what was paid in": 0,
    }


def crash(platform, spender, returner, bystander):
    async def run():
        """What comes after `kept_bytes` is lost: 30 requests, and the return of a block."""
        async with (
            platform.client(spender) as client,
            platform.client(returner) as idle,
            platform.client(bystander) as neighbour,
            streams(neighbour, 4, **chat(LONG, FAULTY, max_tokens=1_500)) as (heard, tasks),
            load(neighbour, LOOPS) as made,
        ):
            before = await ask_many(client, 5)
            assert statuses(await ask_many(idle, 10)) == {200: 10}
            await all_begun(heard, tasks)
            await asyncio.to_thread(platform.collected)
            file = platform.append_only_file()
            kept_bytes = file.stat().st_size
            after = await ask_many(client, 30)
            assert statuses(before + after) == {200: 35}
            returned_nano = await with_treasury(platform, lambda books: books.take_back(returner.id, UNIT_NANO))
            assert returned_nano > 0
            assert await asyncio.to_thread(platform.account, returner) == (90 * CENT_NANO, 0)
            with platform.without_redis():
                assert file.stat().st_size > kept_bytes
                os.truncate(file, kept_bytes)
                answer = await client.post(CHAT, json=body())
                assert answer.status_code == 503
                assert "retry-after" in answer.headers
            since = len(made.answers)
            await heard_until(lambda: any(status == 200 for _, status, _ in made.answers[since:]))
        return {answer.json()["id"] for answer in before + after}, made

    answered, made = asyncio.run(run())
    assert set(made.statuses()) <= {200, 503}
    assert made.lost == 0
    serves_again(platform)
    assert spend_all(platform, returner, bound=90) == 90
    records = platform.records(spender)
    lost = len(answered - records.keys())
    old_epoch = platform.account(spender)[1]
    assert old_epoch > 0, "what was lent to the life of Redis that ended stays held until its requests must be over"
    asyncio.run(with_treasury(platform, lambda books: books.sweep(), TreasurySettings(closing_ms=0)))
    assert spend_all(platform, spender, bound=65 + lost) == 65 + lost
    assert charged(platform, spender, returner) == {spender.id: UNIT_NANO, returner.id: UNIT_NANO}
    charged(platform, bystander)
    platform.check_books()
    return lost


def test_a_wiped_redis_takes_nothing_from_anybody(platform, full, figures):
    rounds = 5 if full else 1
    requests = 0
    for _ in range(rounds):
        payer, revoked = platform.tenant("payer", "1000"), platform.tenant("gone", "1.00")
        requests += wipe(platform, payer, revoked)
    figures[f"W6 {platform.backend}"] = {"wiped": rounds, "requests charged": requests, "charged twice": 0}


def wipe(platform, payer, revoked):
    async def run():
        async with platform.client(payer) as client, platform.client(revoked) as ended, load(client, LOOPS) as made:
            assert (await ask(ended)).status_code == 200
            await asyncio.to_thread(platform.do, "keys", "revoke", revoked.key_id)
            assert (await ended.post(CHAT, json=body())).status_code == 401
            await heard_until(lambda: made.statuses()[200] > 20)
            async with streams(client, 4, **chat(LONG, FAULTY, max_tokens=1_500)) as (heard, tasks):
                await all_begun(heard, tasks)
                with platform.redis() as server:
                    server.flushall()
                since = len(made.answers)
                await heard_until(lambda: any(status == 200 for _, status, _ in made.answers[since:]))
                assert (await ended.post(CHAT, json=body())).status_code == 401
                await asyncio.gather(*tasks)
        return heard, made

    heard, made = asyncio.run(run())
    assert {each.finish_reason for each in heard} == {"error"}
    assert set(made.statuses()) <= {200, 503}
    serves_again(platform)
    until(lambda: platform.open_requests() == 0)
    records = platform.records(payer)
    charged(platform, payer, revoked)
    assert {records[each.request_id].cost_nano for each in heard if each.request_id in records} <= {0}
    assert len(platform.records(revoked)) <= 1
    assert platform.json("status")["reservations_open"] == 0
    platform.check_books()
    return len(records)
