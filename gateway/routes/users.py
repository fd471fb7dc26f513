"""GET /v1/users/me: what a key stands for."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from core.db import Database, DatabaseUnavailableError
from core.errors import UNAVAILABLE, PlatformError
from gateway.accounts.organisations import find_organisation
from gateway.accounts.workspaces import find_workspace
from gateway.headers import JSON_TYPE
from gateway.principal import Principal
from gateway.routes.access import authenticate_now
from gateway.schemas.answers import ERROR_RESPONSES
from gateway.schemas.users import NamedObject, UserIdentity
from gateway.services import Services


def users_router(services: Services) -> APIRouter:
    router = APIRouter(tags=["users"], responses={401: ERROR_RESPONSES[401], 503: ERROR_RESPONSES[503]})

    @router.get("/v1/users/me", responses={200: {"model": UserIdentity}}, operation_id="get_identity")
    async def get_identity(request: Request) -> Response:
        """The key, its workspace and its organisation."""
        caller = await authenticate_now(services.principals, services.keeper, request.scope, None)
        try:
            found = await asyncio.to_thread(identity, services.database, caller.principal)
        except DatabaseUnavailableError as error:
            message = "The platform cannot look up names at the moment."
            raise PlatformError(UNAVAILABLE, message, retry_after_s=1) from error
        return Response(found.model_dump_json(), media_type=JSON_TYPE.decode("ascii"))

    return router


def identity(database: Database, principal: Principal) -> UserIdentity:
    """One look into SQL. Raises DatabaseUnavailableError."""
    with database.reading() as session:
        organisation = find_organisation(session, principal.organisation)
        workspace = find_workspace(session, principal.workspace, within=principal.organisation)
        names = organisation.name, workspace.name
    return UserIdentity(
        id=principal.user_id or principal.key_id,
        email=None,
        first_name=None,
        last_name=None,
        workspace=NamedObject(id=principal.workspace, name=names[1]),
        organization=NamedObject(id=principal.organisation, name=names[0]),
        api_key=NamedObject(id=principal.key_id, name=principal.key_name),
    )
