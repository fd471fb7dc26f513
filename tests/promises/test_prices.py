"""M4: a price change under load. Each request costs what was in force when it was admitted, on every gateway."""

import asyncio
import random
import time
from bisect import bisect_right

from billing.price_lists import LEAD_MS, PriceEntry, PriceFile
from billing.prices import PriceScope
from core.clock import ManualClock
from core.meter.cost import cost_nano
from gateway.accounts.pricing import change_prices
from tests.promises.callers import LONG, all_begun, chat, load, streams
from tests.promises.platform import FAULTY

LEAD_SHORT_MS = 1_500


def apply_soon(platform, scope, name, chance):
    """A version that every gateway is told of, and that starts in a moment; operators have to leave a minute."""
    did = platform.hands()
    entry = PriceEntry(scope, *(chance.randrange(1, 10**7) for _ in range(3)))
    earlier = ManualClock(did.clock.now_ms() + LEAD_SHORT_MS - LEAD_MS)
    wanted = PriceFile(name, (entry,))
    with platform.environment():
        with did.changing() as session:
            changes, raised = change_prices(session, wanted, tiers=[scope.tier], actor=did.actor, clock=earlier)
        did.publish(raised)
    assert len(changes) == 1
    return earlier.now_ms() + LEAD_MS


def schedule(platform, organisation):
    """(start, version row) of all versions that this organisation may pay, by start."""
    query = "SELECT * FROM price_versions WHERE tier = :tier AND organisation IN ('', :id) ORDER BY start_ms"
    return [(row.start_ms, row) for row in platform.rows(query, tier=FAULTY, id=organisation)]


def in_force(versions, at_ms):
    """An organisation's own price wins as soon as it has started."""
    started = [row for start_ms, row in versions if start_ms <= at_ms]
    own = [row for row in started if row.organisation]
    return (own or started)[-1]


def test_each_request_costs_what_was_in_force_at_its_admission(platform, full, figures):
    changes, loops = (12, 16) if full else (2, 6)
    chance = random.Random(4)
    tenant, other = platform.tenant("shift", "1000"), platform.tenant("stay", "1000")
    starts_ms = []

    async def change(number):
        """First for everybody, then for one organisation alone, and so on."""
        scope = PriceScope(FAULTY, "", tenant.id) if number % 2 else PriceScope(FAULTY)
        name = f"v{number}-{platform.backend}"
        starts_ms.append(await asyncio.to_thread(apply_soon, platform, scope, name, chance))
        await asyncio.sleep(starts_ms[-1] / 1_000 - time.time() + 0.7)

    async def run():
        async with (
            platform.client(tenant) as client,
            platform.client(other) as neighbour,
            streams(client, 4, **chat(LONG, FAULTY, max_tokens=1_500)) as (heard, tasks),
            load(client, loops, model=FAULTY) as mine,
            load(neighbour, loops // 2, model=FAULTY) as theirs,
        ):
            await all_begun(heard, tasks)
            for number in range(changes):
                await change(number)
        return mine, theirs, heard

    mine, theirs, heard = asyncio.run(run())
    platform.until_idle()
    served = 0
    for who, made in ((tenant, mine), (other, theirs)):
        assert set(made.statuses()) == {200}
        records = platform.records(who)
        versions = schedule(platform, who.id)
        for row in records.values():
            price = in_force(versions, row.admitted_ms)
            assert row.price_version == price.version
            assert row.cost_nano == cost_nano(
                row.prompt_tokens,
                row.cached_tokens,
                row.completion_tokens,
                input_nano=price.input_nano,
                cached_nano=price.cached_nano,
                output_nano=price.output_nano,
            )
        assert made.served() <= set(records)
        used = {bisect_right(starts_ms, row.admitted_ms) for row in records.values()}
        assert used == set(range(changes + 1)), "requests before and after every change"
        served += len(records)
    spanned = [platform.records(tenant)[each.request_id] for each in heard]
    assert all(row.admitted_ms < starts_ms[0] < starts_ms[-1] < row.settled_ms for row in spanned)
    assert {row.price_version for row in spanned} == {each.price_version for each in heard}
    assert len({row.price_version for row in spanned}) == 1
    platform.check_books()
    figures[f"M4 {platform.backend}"] = {
        "changes": changes,
        "requests": served,
        "streams across": len(spanned),
        "mixed": 0,
    }
