"""M2: the exact price. Random usages against exact fractions, in Python and in the Lua that settles requests."""

import random
from fractions import Fraction
from importlib import resources

import msgpack
import pytest
import redis

from core.meter.cost import cost_nano

BATCH = 1_000
PRICES = ("input_nano", "cached_nano", "output_nano")
TOKENS_MAX = 2**20  # a tier's largest context
COMPLETION_MAX = 2**24  # of many choices
PRICE_NANO_MAX = 10**10
SCRIPT = (
    (resources.files("core.meter") / "scripts" / "shared.lua").read_text(encoding="utf-8")
    + """
local costs = {}
for i, n in ipairs(cmsgpack.unpack(ARGV[2])) do
  costs[i] = int(cost_nano(n[1], n[2], n[3], n[4], n[5], n[6]))
end
return costs
"""
)


@pytest.fixture(params=["bundled_socket", "newer_socket"])
def client(request):
    with redis.Redis(unix_socket_path=request.getfixturevalue(request.param)) as made:
        yield made


def usage(chance):
    """Small and large ones, and many whose sum ends in a tie of exactly half a nano-unit."""
    prompt = chance.randrange(chance.choice((3, 4_096, TOKENS_MAX)) + 1)
    cached = chance.choice((0, prompt, chance.randint(0, prompt)))
    completion = chance.randrange(chance.choice((3, 4_096, COMPLETION_MAX)) + 1)
    grain = chance.choice((1, 1, 500))
    prices = [chance.randrange(chance.choice((3_000, PRICE_NANO_MAX)) // grain + 1) * grain for _ in PRICES]
    return prompt, cached, completion, *prices


def exact(prompt, cached, completion, input_nano, cached_nano, output_nano):
    total = (prompt - cached) * input_nano + cached * cached_nano + completion * output_nano
    return round(Fraction(total, 1_000))  # Python rounds a Fraction half to even


def test_random_usages_cost_what_fractions_say(client, full, figures):
    count = 10**6 if full else 2_000
    chance = random.Random(2)
    ties = 0
    for _ in range(count // BATCH):
        usages = [usage(chance) for _ in range(BATCH)]
        expected = [exact(*each) for each in usages]
        python = [cost_nano(*each[:3], **dict(zip(PRICES, each[3:], strict=True))) for each in usages]
        assert python == expected
        lua = client.eval(SCRIPT, 1, "t", "0", msgpack.packb(usages))
        assert [int(each) for each in lua] == expected
        ties += sum((p - c) * i + c * k + o * out in range(500, 2**62, 1_000) for p, c, o, i, k, out in usages)
    assert ties > count // 20
    version = client.info("server")["redis_version"]
    figures[f"M2 Python and Lua of Redis {version}"] = {"usages": count, "ties": ties, "different": 0}
