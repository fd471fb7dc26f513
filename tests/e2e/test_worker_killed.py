"""SIGKILL the worker under load: nothing accepted is lost, nothing is charged twice, everything is recorded once."""

import asyncio
import json
import os
import signal
from collections import Counter

import httpx
import pytest

from core.db import connect_database
from tests.e2e.installation import BOUND_S, Installation, until

SLOTS = 5
BODY = {"model": "mistral-tiny", "messages": [{"role": "user", "content": "Count."}], "max_tokens": 40}


@pytest.fixture
def paced(tmp_path):
    """Echo at a pace that leaves time to kill, with five slots."""
    made = Installation(tmp_path)
    text = made.config.read_text()
    assert text.count("\nslots = 48\n") == 3
    paced = f"\nslots = {SLOTS}\npool_reserve = 0.0\necho = {{ tokens_per_s = 20 }}\n"
    made.config.write_text(text.replace("\nslots = 48\n", paced))
    made.ok("up", "--detach", "--engine", "echo", "--port", "0", "--tiers", "mistral-tiny")
    yield made
    made.call("down")


async def ask(client: httpx.AsyncClient) -> dict:
    answer = await client.post("/v1/chat/completions", json=BODY)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def stream(client: httpx.AsyncClient, begun: asyncio.Event) -> dict:
    """The last chunk; `begun` is set when the first words are here."""
    chunks = []
    async with client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                chunks.append(json.loads(line.removeprefix("data: ")))
            if len(chunks) == 3:
                begun.set()
    return chunks[-1]


def worker_pid(status: dict) -> int:
    return next(process["pid"] for process in status["processes"] if process["name"] == "worker")


def outcomes(installation: Installation) -> Counter:
    database = connect_database(f"sqlite:///{installation.home.root / 'tramontane.sqlite3'}")
    try:
        with database.reading() as session:
            rows = (
                session.connection().exec_driver_sql("SELECT request_id, outcome, cost_nano FROM usage_records").all()
            )
    finally:
        database.close()
    assert len({request_id for request_id, _, _ in rows}) == len(rows)
    assert all(cost == 0 for _, outcome, cost in rows if outcome == "failed")
    return Counter(outcome for _, outcome, _ in rows)


def test_a_killed_worker_loses_nothing(paced):
    status = paced.json("status")
    key = paced.json("keys", "create", "--workspace", "default", "--name", "drill")["key"]
    first_pid = worker_pid(status)

    async def run():
        headers = {"Authorization": f"Bearer {key}"}
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(
            base_url=status["base_url"], headers=headers, limits=limits, timeout=BOUND_S
        ) as client:
            begun = [asyncio.Event(), asyncio.Event()]
            streams = [asyncio.create_task(stream(client, event)) for event in begun]
            await asyncio.gather(*(event.wait() for event in begun))
            asks = [asyncio.create_task(ask(client)) for _ in range(3 + 20)]

            def loaded() -> bool:
                tier = paced.json("status")["tiers"]["mistral-tiny"]
                return (tier["running"], tier["queued"]) == (SLOTS, 20)

            await asyncio.to_thread(until, loaded)
            os.kill(first_pid, signal.SIGKILL)
            return await asyncio.gather(*streams), await asyncio.gather(*asks)

    streamed, answered = asyncio.run(run())
    assert [chunk["choices"][0]["finish_reason"] for chunk in streamed] == ["error", "error"]
    assert all(answer["usage"]["completion_tokens"] > 0 for answer in answered)

    until(lambda: paced.json("status")["reservations_open"] == 0)
    after = paced.json("status")
    assert worker_pid(after) != first_pid
    assert (after["tiers"]["mistral-tiny"]["queued"], after["tiers"]["mistral-tiny"]["running"]) == (0, 0)
    told = sum(answer["usage"]["completion_tokens"] for answer in answered)
    rows = paced.json("usage")["rows"]
    assert sum(row["completion_tokens"] for row in rows) == told
    assert outcomes(paced) == {"finished": 23, "failed": 2}
