"""M1: no overspend. 1.00 of credit and parallel requests of 0.01 through several gateways: exactly 100 are served."""

import asyncio

from tests.promises.callers import ask_many, refused_by, statuses
from tests.promises.platform import CENT_NANO


def test_exactly_what_the_credit_covers(platform, full, figures):
    rounds, parallel = (8, 500) if full else (1, 160)
    for number in range(rounds):
        tenant = platform.tenant("acme", "1.00")

        async def run(tenant=tenant, number=number):
            async with platform.client(tenant) as client:
                return await ask_many(client, parallel, seed=number)

        answers = asyncio.run(run())
        assert statuses(answers) == {200: 100, 402: parallel - 100}
        for answer in answers:
            if answer.status_code == 402:
                assert answer.json()["type"] == "insufficient_credit"
                assert refused_by(answer)["limit"] == CENT_NANO
        platform.check_books()
        assert sum(row.cost_nano for row in platform.records(tenant).values()) == 100 * CENT_NANO
        assert platform.account(tenant) == (0, 0)
    figures[f"M1 {platform.backend}"] = {"rounds": rounds, "requests": rounds * parallel, "served": rounds * 100}
