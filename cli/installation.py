"""The installation as a command finds it: its settings, its running platform if there is one, its Redis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from cli.home import Home
from cli.state import State, running_state, settings_of
from core.catalog import Catalog
from core.errors import SetupError
from core.installation import catalog_for
from core.queue.redis import RedisQueueKeeper
from core.queue.settings import queue_settings
from core.redis import connect
from core.settings import read_settings
from gateway.accounts.settings import AccountSettings


@dataclass(frozen=True, slots=True)
class Installation:
    """`settings` are those of the running platform where it has told them. `redis_url` None: nothing runs."""

    home: Home
    settings: AccountSettings
    state: State | None

    @property
    def redis_url(self) -> str | None:
        url = self.settings.redis_url
        return None if url is None else url.get_secret_value()


def find_installation() -> Installation:
    settings = read_settings(AccountSettings)
    home = Home(settings.home.absolute())
    state = running_state(home)
    return Installation(home=home, settings=settings_of(settings, state), state=state)


def catalog_of(installation: Installation) -> Catalog:
    return catalog_for(installation.settings)


@asynccontextmanager
async def redis_of(installation: Installation) -> AsyncIterator[Redis]:
    """A client; whatever goes wrong with it is one sentence."""
    client = connect(installation.settings.redis(), installation.settings.redis_timeout_s)
    try:
        yield client
    except RedisError as error:
        raise SetupError(f"Redis does not answer: {error}.") from error
    finally:
        await client.aclose()


@asynccontextmanager
async def keeper_of(installation: Installation) -> AsyncIterator[RedisQueueKeeper]:
    settings = installation.settings
    async with redis_of(installation) as client:
        bounds = queue_settings(catalog_of(installation), settings.cell, settings.lease_ms)
        keeper = RedisQueueKeeper(client, bounds)
        try:
            yield keeper
        finally:
            await keeper.close()
