"""GET /v1/models and /v1/users/me for real keys."""

from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI
from mistralai.client.models import ModelList, UserIdentity
from starlette.responses import JSONResponse

from core.catalog import read_catalog
from core.clock import ManualClock
from core.errors import PlatformError
from core.ids import CountingIds
from core.queue.base import QueueSettings
from core.queue.memory.broker import MemoryBroker
from core.queue.memory.views import MemoryQueueKeeper
from core.text_counter import WordCounter
from core.tokens import ChatTokenizer
from gateway.accounts.principals import SqlPrincipals
from gateway.admission import AdmissionSettings, Admitter
from gateway.routes.models import models_router
from gateway.routes.users import users_router
from tests.accounts_world import PEPPERS, TIERS, AccountsWorld

CATALOG = read_catalog(Path(__file__).parents[3] / "tramontane.toml").only(frozenset({"mistral-tiny", "mistral-embed"}))


@pytest.fixture(scope="module")
def admitter():
    return Admitter(
        catalog=CATALOG,
        tokenizers={"mistral-tiny": ChatTokenizer.load("v1")},
        counters={"mistral-embed": WordCounter()},
        cell="c0",
        ids=CountingIds(),
        clock=ManualClock(1_000),
        submitter="gateway-1",
        settings=AdmissionSettings(),
    )


@pytest.fixture
async def scene(database, admitter):
    world = AccountsWorld(database)
    services = SimpleNamespace(
        principals=SqlPrincipals(database, PEPPERS, world.clock, TIERS),
        keeper=MemoryQueueKeeper(MemoryBroker(QueueSettings("c0", 6_000, {}), world.clock)),
        catalog=CATALOG,
        admitter=admitter,
        database=database,
        clock=world.clock,
    )
    app = FastAPI()
    app.include_router(models_router(services))
    app.include_router(users_router(services))

    async def refused(_request, error):
        return JSONResponse({"message": error.message}, status_code=error.kind.status)

    app.add_exception_handler(PlatformError, refused)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        yield SimpleNamespace(world=world, client=client)


async def ask(scene, key, path, method="GET"):
    headers = {"authorization": f"Bearer {key.key.get_secret_value()}"}
    return await scene.client.request(method, path, headers=headers)


def names(answer):
    return [card["id"] for card in answer.json()["data"]]


async def test_every_name_has_a_card_that_the_client_reads(scene):
    answer = await ask(scene, scene.world.key(), "/v1/models")
    cards = ModelList.model_validate_json(answer.content).data
    assert [card.id for card in cards] == [name for tier in CATALOG.tiers for name in (tier.name, *tier.aliases)]
    tiny = next(card for card in cards if card.id == "open-mistral-7b")
    assert (tiny.name, tiny.type, tiny.max_context_length) == ("mistral-tiny", "base", 2048)
    assert (tiny.capabilities.completion_chat, tiny.capabilities.function_calling) == (True, True)
    assert tiny.capabilities.completion_fim is False
    assert "mistral-tiny" in tiny.aliases


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("model=open-mistral-7b", ["open-mistral-7b"]),
        ("model=nothing", []),
        ("provider=another", []),
        ("provider=mistralai&model=mistral-embed", ["mistral-embed"]),
    ],
)
async def test_the_list_can_be_narrowed(scene, query, found):
    assert names(await ask(scene, scene.world.key(), f"/v1/models?{query}")) == found


async def test_a_key_sees_only_the_tiers_that_it_may_use(scene):
    key = scene.world.key(tiers=("mistral-embed",))
    assert set(names(await ask(scene, key, "/v1/models"))) == {"mistral-embed", "mistral-embed-2312"}
    for method in ("GET", "DELETE"):
        assert (await ask(scene, key, "/v1/models/mistral-tiny", method)).status_code == 404


async def test_one_card_by_alias_and_none_for_another_name(scene):
    key = scene.world.key()
    assert (await ask(scene, key, "/v1/models/mistral-tiny-2312")).json()["name"] == "mistral-tiny"
    assert (await ask(scene, key, "/v1/models/nothing")).status_code == 404


async def test_a_base_model_is_not_deleted(scene):
    key = scene.world.key()
    answer = await ask(scene, key, "/v1/models/mistral-tiny", "DELETE")
    assert (answer.status_code, answer.json()["message"]) == (
        403,
        "mistral-tiny is a base model and cannot be deleted.",
    )
    assert (await ask(scene, key, "/v1/models/nothing", "DELETE")).status_code == 404


async def test_a_key_names_itself_its_workspace_and_its_organisation(scene):
    key = scene.world.key()
    who = UserIdentity.model_validate_json((await ask(scene, key, "/v1/users/me")).content)
    assert who.api_key.id == key.id
    assert who.workspace.name == "default"
    assert who.organization.id == scene.world.default.organisation
    assert who.organization.name


async def test_without_a_key_nothing_is_told(scene):
    for path in ("/v1/models", "/v1/models/mistral-tiny", "/v1/users/me"):
        assert (await scene.client.get(path)).status_code == 401
