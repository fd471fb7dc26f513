"""How the commands of accounts act: as this machine's user, in one unit of work, and then they tell the gateways."""

import asyncio
import getpass
import json
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from cli.database import opened
from cli.installation import Installation, find_installation, keeper_of
from core.clock import Clock, SystemClock
from core.errors import SetupError
from core.ids import IdSource, SystemIds
from gateway.accounts.generations import Change, Generation, publish_generations
from gateway.accounts.trail import Actor


@dataclass(frozen=True, slots=True)
class Hands:
    installation: Installation
    actor: Actor
    clock: Clock
    ids: IdSource

    @contextmanager
    def changing(self) -> Iterator[Session]:
        with opened(self.installation.settings) as database, database.unit_of_work() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with opened(self.installation.settings) as database, database.reading() as session:
            yield session

    def publish(self, generations: Iterable[Generation]) -> None:
        """After the commit. Where nothing runs, the next start publishes. Raises SetupError."""
        if self.installation.redis_url is None:
            return
        try:
            asyncio.run(_publish(self.installation, tuple(generations)))
        except SetupError as error:
            raise SetupError(f"It is done, but the gateways could not be told; repeat it. {error}") from error


def hands() -> Hands:
    clock = SystemClock()
    user = getpass.getuser()
    return Hands(find_installation(), Actor("cli", user, user, socket.gethostname()), clock, SystemIds(clock))


def tell(did: Hands, change: Change, said: str, *, as_json: bool) -> None:
    """What a command answers that only changed something."""
    did.publish(change.publish)
    if as_json:
        print_json({"id": change.id})
    else:
        sys.stdout.write(said + "\n")


def print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def moment(at_ms: int | None) -> str:
    return "-" if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


async def _publish(installation: Installation, generations: tuple[Generation, ...]) -> None:
    async with keeper_of(installation) as keeper:
        await publish_generations(keeper, generations)
