"""M1: no overspend. 1.00 of credit and parallel requests of 0.01 through two gateways: exactly 100 are served."""

import asyncio

from tests.promises.platform import CENT_NANO, ask, statuses


def test_exactly_what_the_credit_covers(platform, full, figures):
    platform.start()
    rounds, parallel = (8, 500) if full else (1, 160)
    for number in range(rounds):
        tenant = platform.tenant(f"acme-{number}", "1.00")

        async def run(tenant=tenant, number=number):
            async with platform.client(tenant) as client:
                return await asyncio.gather(*(ask(client, seed=number * parallel + i) for i in range(parallel)))

        answers = asyncio.run(run())
        assert statuses(answers) == {200: 100, 402: parallel - 100}
        refused = next(answer.json() for answer in answers if answer.status_code == 402)
        assert refused["type"] == "insufficient_credit"
        assert str(CENT_NANO) in refused["message"]
    platform.check_books()
    spent = platform.rows("SELECT organisation, sum(cost_nano) FROM usage_records GROUP BY organisation")
    assert [int(nano) for _, nano in spent] == [100 * CENT_NANO] * rounds
    assert all(
        int(left) == 0
        for (left,) in platform.rows(
            "SELECT posted_nano FROM credit_accounts WHERE limit_nano = 0 AND posted_nano < 1000000000"
        )
    )
    figures[f"M1 {platform.backend}"] = {"rounds": rounds, "requests": rounds * parallel, "served": rounds * 100}
