"""A new operator's first day, by the real commands: an organisation, a workspace, a key, credit until it ends, why,
more credit, usage, a rotation, a revocation in mid-stream.
"""

import asyncio

from tests.promises.callers import CHAT, LONG, Heard, ask_many, body, chat, heard_until, listen, refused_by, statuses
from tests.promises.platform import CENT_NANO, FAULTY, TINY, Tenant


def test_the_first_day(platform):
    acme = platform.json(
        "orgs", "create", f"First Day {platform.backend}", "--plan", "bare", "--time-zone", "Europe/Rome"
    )
    workspace = platform.json("workspaces", "create", "shop", "--org", acme["id"])
    made = platform.json("keys", "create", "--org", acme["id"], "--workspace", workspace["id"], "--name", "till")
    platform.secrets.append(made["key"])
    platform.ok("credit", "top-up", acme["id"], "1.00")
    tenant = Tenant(acme["id"], acme["id"], made["key"], made["id"])

    async def run():
        async with platform.client(tenant) as client:
            answers = [answer for _ in range(6) for answer in await ask_many(client, 20)]
            assert statuses(answers) == {200: 100, 402: 20}
            assert {answer.json()["usage"]["prompt_tokens"] for answer in answers if answer.status_code == 200} == {10}
            why = answers[-1]
            assert why.json()["type"] == "insufficient_credit"
            assert f"needs {CENT_NANO} nano-units, the balance is 0" in why.json()["message"]
            assert "open requests reserve 0" in why.json()["message"]
            assert refused_by(why)["limit"] == CENT_NANO
            await asyncio.to_thread(platform.ok, "credit", "top-up", tenant.id, "1.00")
            assert (await client.post(CHAT, json=body())).status_code == 200
            await asyncio.to_thread(look_at_usage, platform, tenant)
            (line,) = (await client.get("/v1/usage", params={"group_by": "tier"})).json()["data"]
            assert (line["tier"], line["requests"], line["cost"], line["prompt_tokens"]) == (TINY, 101, "1.01", 1_010)
            await rotate_and_revoke(platform, tenant, client)

    asyncio.run(run())
    platform.check_books()


def look_at_usage(platform, tenant):
    rows = {row["key_id"]: row for row in platform.json("usage")["rows"]}
    assert (rows[tenant.key_id]["requests"], rows[tenant.key_id]["cost_nano"]) == (101, 101 * CENT_NANO)
    shown = platform.json("credit", "show", tenant.id)
    assert (shown["balance"], shown["owed"]) == ("0.99", "0.00")


async def rotate_and_revoke(platform, tenant, client):
    rotated = await asyncio.to_thread(platform.json, "keys", "rotate", tenant.key_id)
    platform.secrets.append(rotated["key"])
    new = {"authorization": f"Bearer {rotated['key']}"}
    assert (await client.post(CHAT, json=body())).status_code == 200
    assert (await client.post(CHAT, json=body(), headers=new)).status_code == 200
    last = await asyncio.to_thread(platform.json, "keys", "rotate", tenant.key_id, "--overlap-s", "0")
    platform.secrets.append(last["key"])
    assert (await client.post(CHAT, json=body())).status_code == 401
    assert (await client.post(CHAT, json=body(), headers=new)).status_code == 401
    client.headers["authorization"] = f"Bearer {last['key']}"
    assert (await client.post(CHAT, json=body())).status_code == 200
    heard = Heard()
    streaming = asyncio.create_task(listen(client, heard, **chat(LONG, FAULTY, max_tokens=1_500)))
    await heard_until(heard.first.is_set)
    await asyncio.to_thread(platform.ok, "keys", "revoke", tenant.key_id)
    await streaming
    assert (heard.status, heard.finish_reason) == (200, "error")
    assert (await client.post(CHAT, json=body())).status_code == 401
    await asyncio.to_thread(platform.until_idle)
    records = await asyncio.to_thread(platform.records, tenant)
    assert records[heard.request_id].outcome == "cancelled"
    assert records[heard.request_id].completion_tokens >= heard.words
