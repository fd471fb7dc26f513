"""`tramontane run embed` as a real process on a real Redis: from an admitted job to vectors, poison and drain."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.heartbeat import read_beat
from core.ids import SystemIds
from core.meter.credit_redis import RedisCreditStore
from core.queue.base import Admission, Admitted, Price, QueueSettings, TierBounds
from core.queue.redis import RedisQueueKeeper, RedisSubmitterQueue
from core.redis import connect
from core.wire import EMBED, End, Job
from embed.encoders.hash import FAULT_MARKER, HashEncoder

DIMENSIONS = 16
WAIT_S = 60
CONFIG = f"""
[plans.development]
requests_per_minute = 1
tokens_per_minute = 1
concurrency = 1
credit = "1"

[tiers.e]
kind = "embed"
engine = "hash"
weights = "none"
context_tokens = 32
dimensions = {DIMENSIONS}
price = {{ input = "0.10" }}
"""


@pytest.fixture
def embed(tmp_path, bundled_socket):
    """The running process, ready, and the URL of its Redis."""
    (tmp_path / "tramontane.toml").write_text(CONFIG)
    url = f"unix://{bundled_socket}?db=0"
    settings = {"HOME": tmp_path, "CONFIG": tmp_path / "tramontane.toml", "REDIS_URL": url, "CELL": "e1"}
    settings["HEARTBEAT_FILE"] = tmp_path / "beat"
    env = {**os.environ, **{f"TRAMONTANE_{name}": str(value) for name, value in settings.items()}}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "cli.run", "embed"], env=env, stderr=log)
    try:
        until_s = time.monotonic() + WAIT_S
        while (beat := read_beat(tmp_path / "beat")) is None or not beat.ready:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < until_s, (tmp_path / "log").read_text()
            time.sleep(0.02)
        yield process, url
    finally:
        process.kill()
        process.wait(timeout=WAIT_S)


def admission(request_id: str, *texts: str) -> Admission:
    tokens = 10 * len(texts)
    deadline_ms = SystemClock().now_ms() + 60_000
    job = Job(request_id, "g1", "acme", "main", "e", EMBED, deadline_ms, tokens, tokens, texts=texts)
    return Admission(job, "key1", 1, (Price("p1", 100_000, 100_000, 0),), (), 0, 1, 60_000)


async def ends(submitter: RedisSubmitterQueue, count: int) -> dict[str, End]:
    found: dict[str, End] = {}
    until_s = time.monotonic() + WAIT_S
    while len(found) < count:
        assert time.monotonic() < until_s
        found |= {event.request_id: event for event in await submitter.receive(1.0) if isinstance(event, End)}
    return found


async def test_texts_go_in_and_vectors_come_out(embed, tmp_path: Path):
    process, url = embed
    ids = SystemIds(SystemClock())
    queue = QueueSettings("e1", 6_000, {"e": TierBounds(2_000, 0.0)})
    async with connect(url, 5.0) as client:
        keeper, submitter = RedisQueueKeeper(client, queue), RedisSubmitterQueue(client, queue, "g1")
        await submitter.open()
        funds = RedisCreditStore(client, queue.cell)
        assert await funds.open_epoch(1)
        assert await funds.give("gift", "acme", 1, 10**9)
        requests = {ids.request_id("e1"): ("a text", f"number {number}") for number in range(40)}
        poisoned = ids.request_id("e1")
        for request_id, texts in {**requests, poisoned: ("fine", FAULT_MARKER)}.items():
            assert isinstance(await submitter.admit(admission(request_id, *texts)), Admitted)
        answers = await ends(submitter, 41)
        failed = answers.pop(poisoned)
        assert (failed.error is not None, failed.cost_nano, failed.vectors) == (True, 0, ())
        for request_id, texts in requests.items():
            assert answers[request_id].vectors == tuple(HashEncoder(DIMENSIONS).encode(texts))
            assert answers[request_id].cost_nano == 20 * 100_000 // 1_000
        assert (await keeper.stats(["e"])).reservations_open == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=WAIT_S) == 0, (tmp_path / "log").read_text()
        assert (await keeper.stats(["e"])).tiers["e"].workers == 0
        await submitter.close()
        await keeper.close()
        await funds.close()
