"""GET /v1/limits over real limits, real counters and SQL that knows what Redis does not."""

from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI

from billing.models import UsageSpan
from core.db import insert_new
from core.queue.base import QueueSettings
from core.queue.memory.broker import MemoryBroker
from core.queue.memory.funds import MemoryCounterStore, MemoryCreditStore
from core.queue.memory.views import MemoryQueueKeeper
from core.queue.rules import RuleKind
from gateway.accounts.limits import LimitTerms, Subject, SubjectKind, set_limit
from gateway.accounts.principals import SqlPrincipals
from gateway.routes.limits import limits_router
from tests.accounts_world import PEPPERS, TIERS, AccountsWorld


@pytest.fixture
async def scene(database):
    world = AccountsWorld(database)
    broker = MemoryBroker(QueueSettings("c0", 6_000, {}), world.clock)
    await MemoryCreditStore(broker).open_epoch(1)
    services = SimpleNamespace(
        principals=SqlPrincipals(database, PEPPERS, world.clock, TIERS),
        keeper=MemoryQueueKeeper(broker),
        counters=MemoryCounterStore(broker, world.clock),
        database=database,
        clock=world.clock,
    )
    app = FastAPI()
    app.include_router(limits_router(services))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield SimpleNamespace(world=world, client=client, services=services)


async def ask(scene, key):
    answer = await scene.client.get("/v1/limits", headers={"authorization": f"Bearer {key.key.get_secret_value()}"})
    assert answer.status_code == 200
    return answer.json()["data"]


async def test_all_rules_of_a_key_in_order_and_how_they_stand(scene):
    world = scene.world
    key, other = world.key(scopes=("usage:read",)), world.key()
    for kind, name, terms in (
        (SubjectKind.KEY, key.id, LimitTerms(RuleKind.SPEND_PER_MONTH, 1_000, "mistral-tiny")),
        (SubjectKind.KEY, other.id, LimitTerms(RuleKind.SPEND_PER_MONTH, 5)),
        (SubjectKind.CUSTOMER, world.default.organisation, LimitTerms(RuleKind.TOKENS_PER_MONTH, 500, hard=False)),
    ):
        world.do(set_limit, Subject(kind, name), terms, within=None, known_tiers=TIERS, ids=world.ids)
    data = await ask(scene, key)
    assert [(rule["rule"], rule["scope"], rule["tier"], rule["value"], rule["hard"]) for rule in data] == [
        ("requests_per_minute", "organisation", None, 60, True),
        ("tokens_per_minute", "organisation", None, 1000, True),
        ("tokens_per_month", "organisation", None, 500, False),
        ("concurrency", "organisation", None, 5, True),
        ("spend_per_month", "key", "mistral-tiny", 1000, True),
    ]
    assert all((rule["used"], rule["remaining"]) == (0, rule["value"]) for rule in data)
    assert [rule["window"] for rule in data] == [None, None, "2023-11", None, "2023-11"]
    december_s = 1_701_388_800
    assert data[2]["reset_at"] == december_s
    assert data[2]["reset_s"] == december_s - world.clock.now_ms() // 1_000


async def test_what_only_sql_knows_is_counted_first(scene):
    world = scene.world
    key = world.key()
    subject, terms = Subject(SubjectKind.KEY, key.id), LimitTerms(RuleKind.TOKENS_PER_MONTH, 500)
    world.do(set_limit, subject, terms, within=None, known_tiers=TIERS, ids=world.ids)
    columns = UsageSpan.__table__.columns
    span = {
        **{column.key: b"" if column.key.endswith("sketch") else 0 for column in columns},
        "start_ms": world.clock.now_ms() // 900_000 * 900_000,
        "organisation": world.default.organisation,
        "workspace": world.default.workspace,
        "key_id": key.id,
        "tier": "mistral-tiny",
        "kind": "chat",
        "prompt_tokens": 120,
        "completion_tokens": 3,
    }
    unique = [column.key for column in UsageSpan.__table__.primary_key]
    with world.database.unit_of_work() as session:
        insert_new(session, UsageSpan, [span], unique)
    for _ in range(2):
        (rule,) = (rule for rule in await ask(scene, key) if rule["rule"] == "tokens_per_month")
        assert (rule["used"], rule["remaining"]) == (123, 377)
