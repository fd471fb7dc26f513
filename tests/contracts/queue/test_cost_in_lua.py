"""The scripts price a request exactly as core/meter/cost.py does."""

import json
from importlib import resources

import pytest
from redis.asyncio import Redis

from core.meter.cost import cost_nano

METER = resources.files("core.meter")
VECTORS = json.loads((METER / "vectors.json").read_text(encoding="utf-8"))
NAMES = ("prompt_tokens", "cached_tokens", "completion_tokens", "input_nano", "cached_nano", "output_nano")
SCRIPT = (
    (METER / "scripts" / "shared.lua").read_text(encoding="utf-8")
    + """
local n = {}
for i = 2, 7 do n[i - 1] = tonumber(ARGV[i]) end
return int(cost_nano(n[1], n[2], n[3], n[4], n[5], n[6]))
"""
)


@pytest.fixture(params=["bundled_socket", "newer_socket"])
def socket(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


async def priced(client: Redis, numbers: list[int]) -> int:
    return int(await client.eval(SCRIPT, 1, "t", "0", *numbers))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["why"])
async def test_vector(socket: str, vector):
    async with Redis(unix_socket_path=socket) as client:
        assert await priced(client, [vector[name] for name in NAMES]) == vector["cost_nano"]


async def test_small_requests_of_every_remainder(socket: str):
    async with Redis(unix_socket_path=socket) as client:
        for step in range(300):
            prompt, cached, completion = 1 + step, step // 3, (step * 17) % 40
            prices = {"input_nano": 140_000 + step, "cached_nano": 14_001, "output_nano": 419_999 + 7 * step}
            expected = cost_nano(prompt, cached, completion, **prices)
            assert await priced(client, [prompt, cached, completion, *prices.values()]) == expected
