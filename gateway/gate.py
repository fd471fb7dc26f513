"""The way in: the one admission call, and what cures its refusals before the caller hears of them.

| refused by | cure |
|---|---|
| stale | load the principal anew |
| credit | ask billing for a block |
| unseeded | tell Redis what SQL knows of a calendar window |
| epoch | have billing open the next one |

Everything else is the caller's to know, word for word.
"""

from collections.abc import Callable
from typing import Protocol

from core.errors import UNAVAILABLE, PlatformError
from core.queue.base import Admission, Refused, RefusedBy, Repeated
from gateway.conversation import Conversation
from gateway.exchange import Exchange
from gateway.principal import Principal, PrincipalSource
from gateway.refusals import refusal_error
from gateway.routes.access import Caller

TRIES_MAX = 6


class Funding(Protocol):
    """Money and counters behind admission. All raise PlatformError when the platform cannot tell now."""

    async def lend(self, admission: Admission, refused: Refused) -> None:
        """Returns when Redis was given what is needed; raises 402, or 429 when only open requests are in the way."""

    async def seed(self, admission: Admission) -> None: ...

    async def open_epoch(self) -> None: ...

    def spent(self, admission: Admission, credit_left_nano: int) -> None:
        """An admission left so much; called for each one, so it only notes who should be given more soon."""


class Gate:
    def __init__(self, exchange: Exchange, principals: PrincipalSource, funding: Funding) -> None:
        self._exchange = exchange
        self._principals = principals
        self._funding = funding

    async def open(self, caller: Caller, admit: Callable[[Principal], Admission]) -> Conversation | Repeated:
        """Raises PlatformError with the rule that refused. `admit` is called again for a principal loaded anew."""
        principal = caller.principal
        admission = admit(principal)
        before: RefusedBy | None = None
        for _ in range(TRIES_MAX):
            answer = await self._exchange.ask(admission)
            if isinstance(answer, Conversation):
                answer.expires_ms = principal.expires_ms
                self._funding.spent(admission, answer.admitted.credit_left_nano)
            if not isinstance(answer, Refused):
                return answer
            if answer.by is RefusedBy.STALE and before is not RefusedBy.STALE:
                principal = await caller.reload(self._principals)
                admission = admit(principal)
            elif not await self._cured(admission, answer):
                raise refusal_error(answer)
            before = answer.by
        raise PlatformError(UNAVAILABLE, "Credit and limits are being brought up to date; try again.", retry_after_s=1)

    async def _cured(self, admission: Admission, refused: Refused) -> bool:
        """False for what nothing here cures, among it a principal that was loaded a moment ago and is stale again."""
        match refused.by:
            case RefusedBy.CREDIT:
                await self._funding.lend(admission, refused)
            case RefusedBy.UNSEEDED:
                await self._funding.seed(admission)
            case RefusedBy.EPOCH:
                await self._funding.open_epoch()
            case _:
                return False
        return True
