"""Whether the keys behind open requests are still good: once a second, by the generations of their organisations and by
when they expire.
"""

import asyncio
from collections import defaultdict

from structlog.stdlib import BoundLogger

from core.clock import Clock
from core.errors import PlatformError
from core.queue.base import QueueKeeper
from gateway.conversation import Conversation
from gateway.desk import QUEUE_AWAY
from gateway.exchange import Exchange
from gateway.principal import PrincipalSource

MS_PER_S = 1_000


class Watch:
    def __init__(
        self,
        exchange: Exchange,
        keeper: QueueKeeper,
        principals: PrincipalSource,
        every_ms: int,
        clock: Clock,
        log: BoundLogger,
    ) -> None:
        self._exchange = exchange
        self._keeper = keeper
        self._principals = principals
        self._every_ms = every_ms
        self._clock = clock
        self._log = log

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._every_ms / MS_PER_S)
            try:
                await self.look()
            except (PlatformError, *QUEUE_AWAY) as error:
                self._log.info("open requests not checked", error=type(error).__name__)

    async def look(self) -> None:
        """End what was asked for with keys that were revoked or have expired since. Raises PlatformError or what a
        queue raises when nobody can tell now; the next look tries again.
        """
        by_organisation: dict[str, list[Conversation]] = defaultdict(list)
        for conversation in self._exchange.conversations():
            by_organisation[conversation.organisation].append(conversation)
        if not by_organisation:
            return
        current = await self._keeper.generations(list(by_organisation))
        now_ms = self._clock.now_ms()
        doubtful: dict[str, list[Conversation]] = defaultdict(list)
        for organisation, conversations in by_organisation.items():
            generation = current.get(organisation, 0)
            for conversation in conversations:
                expires_ms = conversation.expires_ms
                if conversation.generation < generation or (expires_ms is not None and expires_ms <= now_ms):
                    doubtful[conversation.key_id].append(conversation)
        for key_id, conversations in doubtful.items():
            await self._judge(key_id, conversations)

    async def _judge(self, key_id: str, conversations: list[Conversation]) -> None:
        standing = await self._principals.valid(key_id)
        for conversation in conversations:
            if standing is None:
                await conversation.revoke()
            else:
                conversation.generation, conversation.expires_ms = standing.generation, standing.expires_ms
