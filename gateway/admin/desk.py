"""What every admin route does: who asks and for which organisation, one unit of work in a thread, and after its commit
the gateways are told.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Query, Request
from pydantic import BaseModel
from sqlalchemy.orm import Session

from core.db import DatabaseUnavailableError
from core.errors import NOT_ALLOWED, UNAVAILABLE, VALIDATION, PlatformError
from gateway.accounts.generations import Generation, publish_generations
from gateway.accounts.organisations import find_organisation
from gateway.accounts.scopes import OPERATOR
from gateway.accounts.trail import Actor
from gateway.desk import QUEUE_AWAY
from gateway.middleware import call_of, read_json
from gateway.routes.access import authenticate_admin
from gateway.schemas.admin.fields import NAME_PATTERN
from gateway.schemas.answers import ERROR_RESPONSES
from gateway.schemas.parsing import parse
from gateway.services import Services

ERRORS: dict[int | str, dict[str, Any]] = {
    **{status: ERROR_RESPONSES[status] for status in (400, 401, 403, 408, 413, 415, 422, 500, 503)},
    404: {**ERROR_RESPONSES[400], "description": "It does not exist, or is another organisation's."},
    409: {**ERROR_RESPONSES[400], "description": "The object's state does not allow it, or a name is taken."},
}
NAMED = "Of whom; by name or id. Only an operator's key names one, and has to where one is needed."

Named = Annotated[str | None, Query(max_length=128, pattern=NAME_PATTERN, description=NAMED)]
Body = TypeVar("Body", bound=BaseModel)
Answer = TypeVar("Answer")
Changed = tuple[Answer, Iterable[Generation]]


@dataclass(frozen=True, slots=True)
class Acting:
    """Who asks. `home` is the key's own organisation, `named` what an operator's key said."""

    actor: Actor
    home: str
    is_operator: bool
    named: str | None = None

    @property
    def rights(self) -> str | None:
        """`within` as accounts judge it: None for an operator, who may everything."""
        return None if self.is_operator else self.home

    def within(self, session: Session) -> str | None:
        """The organisation whose objects exist for this request; None: all. Raises PlatformError (NOT_FOUND)."""
        if not self.is_operator:
            return self.home
        return None if self.named is None else find_organisation(session, self.named).id

    def organisation(self, session: Session) -> str:
        """The one that the request is about. Raises PlatformError: NOT_FOUND, VALIDATION."""
        found = self.within(session)
        if found is None:
            entry = {"type": "missing", "loc": ["query", "organisation"], "msg": "An operator's key names it."}
            raise PlatformError(VALIDATION, "Name the organisation.", details=(entry,))
        return found


class AdminDesk:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def enter(self, request: Request, organisation: Named = None) -> Acting:
        """A dependency of every route: any admin key whose scopes allow the method."""
        return await self._enter(request, organisation, None)

    async def enter_operator(self, request: Request) -> Acting:
        """A dependency of what concerns the whole installation."""
        return await self._enter(request, None, OPERATOR)

    async def enter_operator_for(self, request: Request, organisation: Named = None) -> Acting:
        """A dependency of what an operator does to one organisation."""
        return await self._enter(request, organisation, OPERATOR)

    async def body(self, request: Request, model: type[Body]) -> Body:
        """After `enter`, so that nobody without a key is told what is wrong with a body."""
        return parse(model, await read_json(request.scope, request.receive))

    async def read(self, work: Callable[[Session], Answer]) -> Answer:
        def run() -> Answer:
            with self._services.database.reading() as session:
                return work(session)

        return await _in_thread(run)

    async def change(self, work: Callable[[Session], Changed[Answer]]) -> Answer:
        """`work` answers what the caller is told and what gateways are to be told once it is committed."""
        answer, generations = await self._commit(work)
        try:
            await publish_generations(self._services.keeper, generations)
        except QUEUE_AWAY as error:
            message = "It is done, but gateways could not be told yet; they will be within a minute."
            raise PlatformError(UNAVAILABLE, message, retry_after_s=1) from error
        return answer

    async def change_once(self, work: Callable[[Session], Changed[Answer]]) -> Answer:
        """As `change`, of what can be shown only now: gateways that cannot be told learn it within a minute."""
        answer, generations = await self._commit(work)
        try:
            await publish_generations(self._services.keeper, generations)
        except QUEUE_AWAY as error:
            self._services.log.warning("generations not published", error=type(error).__name__)
        return answer

    async def _commit(self, work: Callable[[Session], Changed[Answer]]) -> Changed[Answer]:
        def run() -> Changed[Answer]:
            with self._services.database.unit_of_work() as session:
                return work(session)

        return await _in_thread(run)

    async def _enter(self, request: Request, organisation: str | None, needs: str | None) -> Acting:
        services = self._services
        caller = await authenticate_admin(services.principals, services.keeper, request.scope, needs)
        is_operator = OPERATOR in caller.principal.scopes
        if organisation is not None and not is_operator:
            raise PlatformError(NOT_ALLOWED, "Only an operator's key names an organisation.", param="organisation")
        actor = caller.actor(call_of(request.scope).request_id)
        return Acting(actor, caller.principal.organisation, is_operator, organisation)


async def _in_thread(run: Callable[[], Answer]) -> Answer:
    try:
        return await asyncio.to_thread(run)
    except DatabaseUnavailableError as error:
        raise PlatformError(UNAVAILABLE, "The accounts cannot be reached at the moment.", retry_after_s=1) from error
