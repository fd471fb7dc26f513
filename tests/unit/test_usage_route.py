"""GET /v1/usage over a real database: who may see what, exact numbers, pages, files, refusals."""

import csv
import io
import json
from types import SimpleNamespace

import httpx
import pytest
import structlog
from fastapi import FastAPI

from billing.records import store
from billing.rollups import HOUR_MS
from core.clock import ManualClock
from core.db import connect_database
from core.errors import UNAUTHORIZED, PlatformError
from core.ids import CountingIds
from gateway.metrics import GatewayMetrics
from gateway.middleware import Edge
from gateway.principal import Principal
from gateway.routes.usage import usage_router
from migrations.run import migrate
from tests.books import fund
from tests.usage_events import usage_event

DAY_MS = 24 * HOUR_MS
NOON_MS = 1_700_000_000_000 // DAY_MS * DAY_MS + 12 * HOUR_MS
SCOPES = {"reader": {"inference", "usage:read"}, "runner": {"inference"}, "admin": {"admin:read"}, "none": {"other"}}


class Principals:
    async def by_key(self, secret):
        if secret not in SCOPES:
            raise PlatformError(UNAUTHORIZED, "no such key")
        return Principal("k1", "w1", "o1", frozenset(SCOPES[secret]), 1, 1, (), {})

    def forget(self, secret):
        raise AssertionError(f"{secret} is not stale")


class Keeper:
    async def generations(self, organisations):
        return dict.fromkeys(organisations, 1)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """30 requests: three days, keys k0 to k2, one other workspace and one other organisation."""
    url = f"sqlite:///{tmp_path_factory.mktemp('usage') / 'usage.sqlite3'}"
    migrate(url)
    database = connect_database(url)
    fund(database, "o1", "o2")
    events = [
        usage_event(number, admitted_ms=NOON_MS - (number % 3) * DAY_MS - number, cost_nano=1_000_000_001 * number)
        for number in range(30)
    ]
    events += [usage_event(100, workspace="w2", admitted_ms=NOON_MS), usage_event(101, organisation="o2")]
    store(database, events, NOON_MS)
    yield database
    database.close()


@pytest.fixture
def services(database):
    return SimpleNamespace(
        database=database, principals=Principals(), keeper=Keeper(), clock=ManualClock(NOON_MS + HOUR_MS)
    )


@pytest.fixture
async def ask(services):
    app = FastAPI()
    app.include_router(usage_router(services))
    app.add_middleware(
        Edge,
        cell="c0",
        clock=services.clock,
        ids=CountingIds(),
        body_bytes_max=1_000,
        metrics=GatewayMetrics(None),
        log=structlog.get_logger(),
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:

        async def get(path="/v1/usage", key="reader", **query):
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            return await client.get(path, params=query, headers=headers)

        yield get


def mine(key="k1"):
    return [number for number in range(30) if f"k{number % 3}" == key]


async def test_a_key_sees_itself_by_day(ask):
    answer = (await ask()).json()
    (line,) = answer["data"]  # of k1 all are on one day
    numbers = mine()
    assert line["requests"] == len(numbers)
    assert line["cost_nano"] == sum(1_000_000_001 * number for number in numbers)
    assert line["cost"] == f"{sum(numbers)}.{sum(numbers):09d}"
    assert line["total_tokens"] == line["prompt_tokens"] + line["completion_tokens"]
    assert line["prompt_tokens"] == sum(10 + number for number in numbers)
    assert line["start"].endswith("T00:00:00+00:00")
    assert answer["next"] is None
    assert answer["time_zone"] == "UTC"


async def test_a_workspace_is_seen_by_those_who_may_read_usage(ask):
    answer = (await ask(scope="workspace", group_by="key,tier")).json()
    assert [line["key"] for line in answer["data"]] == ["k0", "k1", "k2"]
    assert sum(line["requests"] for line in answer["data"]) == 30
    assert (await ask(key="admin", scope="workspace", group_by="")).json()["data"][0]["requests"] == 30
    assert (await ask(key="runner")).status_code == 200
    for refused in (
        await ask(key="runner", scope="workspace"),
        await ask(key="none"),
        await ask(key="none", scope="workspace"),
    ):
        assert refused.status_code == 403
        assert "usage:read" in refused.json()["message"]
    assert (await ask(key=None)).status_code == 401
    assert (await ask(key="stolen")).status_code == 401


async def test_times_are_read_in_the_zone_and_widened_to_quarters(ask):
    answer = (
        await ask(**{"from": "2023-11-12", "to": "2023-11-14T12:07", "time_zone": "Asia/Kolkata", "scope": "workspace"})
    ).json()
    assert answer["from"] == "2023-11-12T00:00:00+05:30"
    assert answer["to"] == "2023-11-14T12:15:00+05:30"
    assert [line["start"] for line in answer["data"]] == ["2023-11-12T00:00:00+05:30", "2023-11-13T00:00:00+05:30"]
    seconds = (await ask(**{"from": NOON_MS // 1000 - 7200, "to": NOON_MS // 1000, "group_by": "hour"})).json()
    assert seconds["to"] == "2023-11-14T12:00:00+00:00"


async def test_pages_make_the_whole(ask):
    whole = (await ask(scope="workspace", group_by="hour,key")).json()["data"]
    assert len(whole) > 3
    pages, cursor = [], {}
    while True:
        answer = (await ask(scope="workspace", group_by="hour,key", limit=2, **cursor)).json()
        assert len(answer["data"]) <= 2
        pages += answer["data"]
        if answer["next"] is None:
            break
        cursor = {"cursor": answer["next"]}
    assert pages == whole


async def test_files_say_the_same(ask):
    whole = (await ask(scope="workspace", group_by="day,key,tier")).json()["data"]
    answer = await ask(scope="workspace", group_by="day,key,tier", format="csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert "usage.csv" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["start"], row["key"], int(row["cost_nano"]), row["cost"]) for row in rows] == [
        (line["start"], line["key"], line["cost_nano"], line["cost"]) for line in whole
    ]
    lines = [json.loads(line) for line in (await ask(scope="workspace", format="jsonl")).text.splitlines()]
    assert sum(line["requests"] for line in lines) == 30
    empty = await ask(**{"from": "2020-01-01", "to": "2020-01-02", "format": "csv"})
    assert empty.text.count("\r\n") == 1


async def test_every_request_can_be_read(ask):
    answer = await ask("/v1/usage/requests")
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert {row["request_id"] for row in rows} == {usage_event(number).request_id for number in mine()}
    assert sum(row["cost_nano"] for row in rows) == sum(1_000_000_001 * number for number in mine())
    assert (await ask("/v1/usage/requests", scope="workspace", format="csv")).text.count("\r\n") == 31


async def test_latencies_are_told_when_asked_for(ask):
    assert (await ask()).json()["latency"] is None
    found = (await ask(latency=True)).json()["latency"]
    assert found["total_ms"]["p50"] > 0
    assert found["first_token_ms"]["p99"] > 0


@pytest.mark.parametrize(
    "query",
    [
        {"group_by": "hour,day"},
        {"group_by": "colour"},
        {"from": "yesterday"},
        {"from": "2023-11-14", "to": "2023-11-13"},
        {"time_zone": "Mars/Olympus"},
        {"limit": 0},
        {"limit": 10_001},
        {"format": "xml"},
        {"scope": "organisation"},
        {"cursor": "%%%"},
        {"cursor": "WzEsMl0="},
        {"cursor": "bnVsbA=="},
        {"colour": "red"},
        {"from": "2000-01-01", "group_by": "hour"},
        {"from": "9" * 30},
        {"latency": True, "from": "2023-01-01"},
    ],
)
async def test_what_cannot_be_answered_is_422(ask, query):
    answer = await ask(**query)
    assert answer.status_code == 422, answer.text


async def test_sql_that_is_away_is_503(ask, services, tmp_path):
    services.database = connect_database(f"postgresql://nobody@/nothing?host={tmp_path}")
    for path in ("/v1/usage", "/v1/usage/requests"):
        answer = await ask(path)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
    services.database.close()
