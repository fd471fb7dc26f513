"""/v1/admin/api-keys."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from sqlalchemy.orm import Session

from gateway.accounts.api_keys import change_key, create_key, list_keys, revoke_key, rotate_key
from gateway.accounts.scopes import DEFAULT_SCOPES
from gateway.accounts.terms import KeyTerms
from gateway.accounts.users import find_user
from gateway.accounts.workspaces import default_workspace_of
from gateway.admin.desk import ERRORS, Acting, AdminDesk, Changed
from gateway.admin.places import key_by_id, refuse_second_name, workspace_by_id
from gateway.schemas.admin.fields import PAGE_DEFAULT, IdInPath, IdInQuery, Limit, NameInQuery, Offset
from gateway.schemas.admin.keys import (
    KeyCreated,
    KeyCreation,
    KeyList,
    KeyRotation,
    KeyShown,
    KeyUpdate,
    created,
    expires_ms,
    shown,
)
from gateway.schemas.openapi import body_of
from gateway.services import Services

UNNAMED = "unnamed"
KEY_BODIES = (KeyCreation, KeyUpdate, KeyRotation)


def keys_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/admin/api-keys", tags=["admin: keys"], responses=ERRORS)
    desk, work = AdminDesk(services), _Keys(services)

    @router.get("", operation_id="admin_list_keys")
    async def list_all(
        acting: Annotated[Acting, Depends(desk.enter)],
        limit: Limit = PAGE_DEFAULT,
        offset: Offset = 0,
        name: NameInQuery = None,
        workspace_id: IdInQuery = None,
    ) -> KeyList:
        """Oldest first, revoked ones too; `name`: a part of it."""

        def run(session: Session) -> KeyList:
            within = acting.within(session)
            if workspace_id is not None:
                within = workspace_by_id(session, workspace_id, within).organisation_id
            rows = list_keys(session, within=within, workspace=workspace_id, name=name, offset=offset, count=limit)
            return KeyList(keys=[shown(row) for row in rows])

        return await desk.read(run)

    @router.post("", operation_id="admin_create_key", status_code=201, openapi_extra=body_of(KeyCreation))
    async def create(request: Request, acting: Annotated[Acting, Depends(desk.enter)]) -> KeyCreated:
        """The key itself is shown only here. A name that a valid key of the workspace has is refused with 409."""
        asked = await desk.body(request, KeyCreation)
        return await desk.change_once(lambda session: work.create(session, acting, asked))

    @router.get("/{key_id}", operation_id="admin_get_key")
    async def get(acting: Annotated[Acting, Depends(desk.enter)], key_id: IdInPath) -> KeyShown:
        """Never the key itself."""
        return await desk.read(lambda session: shown(key_by_id(session, key_id, acting.within(session))))

    @router.patch("/{key_id}", operation_id="admin_change_key", openapi_extra=body_of(KeyUpdate))
    async def change(request: Request, acting: Annotated[Acting, Depends(desk.enter)], key_id: IdInPath) -> KeyShown:
        """In force on every gateway within a second."""
        asked = await desk.body(request, KeyUpdate)
        return await desk.change(lambda session: work.change(session, acting, key_id, asked))

    @router.delete("/{key_id}", operation_id="admin_revoke_key", status_code=204)
    async def revoke(acting: Annotated[Acting, Depends(desk.enter)], key_id: IdInPath) -> None:
        """For good, within a second, open streams included. It stays in lists, and a second time changes nothing."""

        def run(session: Session) -> Changed[None]:
            within = acting.within(session)
            change = revoke_key(session, key_id, within=within, actor=acting.actor, clock=services.clock)
            return None, change.publish

        await desk.change(run)

    @router.post("/{key_id}/rotate", operation_id="admin_rotate_key", openapi_extra=body_of(KeyRotation))
    async def rotate(request: Request, acting: Annotated[Acting, Depends(desk.enter)], key_id: IdInPath) -> KeyCreated:
        """A new secret for the same id, shown only here. While an overlap lasts only one with overlap_s 0 is done."""
        asked = await desk.body(request, KeyRotation)
        return await desk.change_once(lambda session: work.rotate(session, acting, key_id, asked))

    return router


class _Keys:
    """What the routes do in a unit of work."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._tiers = [tier.name for tier in services.catalog.tiers]

    def create(self, session: Session, acting: Acting, asked: KeyCreation) -> Changed[KeyCreated]:
        services = self._services
        if asked.workspace_uuid is None:
            workspace_id = default_workspace_of(session, acting.organisation(session))
        else:
            workspace_id = asked.workspace_uuid
        workspace = workspace_by_id(session, workspace_id, acting.within(session), lock=True)
        if asked.name is not None:
            refuse_second_name(session, workspace.id, asked.name, services.clock.now_ms())
        owner = None
        if asked.user_id is not None:
            owner = find_user(session, asked.user_id, within=workspace.organisation_id).id
        terms = KeyTerms(
            name=asked.name or UNNAMED,
            scopes=asked.scopes or DEFAULT_SCOPES,
            tiers=asked.tiers,
            networks=asked.networks,
            expires_ms=expires_ms(asked.expiration),
        )
        made = create_key(
            session,
            workspace.id,
            terms,
            within=acting.rights,
            actor=acting.actor,
            peppers=services.peppers,
            clock=services.clock,
            ids=services.ids,
            known_tiers=self._tiers,
            owner=owner,
        )
        return created(key_by_id(session, made.id, workspace.organisation_id), made), made.publish

    def change(self, session: Session, acting: Acting, key_id: str, asked: KeyUpdate) -> Changed[KeyShown]:
        before = key_by_id(session, key_id, acting.within(session))
        said = asked.model_fields_set
        terms = KeyTerms(
            name=asked.name or before.name,
            scopes=asked.scopes or before.scopes,
            tiers=asked.tiers if "tiers" in said else before.tiers,
            networks=before.networks if asked.networks is None else asked.networks,
            expires_ms=expires_ms(asked.expiration) if "expiration" in said else before.expires_ms,
        )
        done = change_key(
            session,
            key_id,
            terms,
            within=acting.rights,
            actor=acting.actor,
            clock=self._services.clock,
            known_tiers=self._tiers,
        )
        return shown(key_by_id(session, key_id, None)), done.publish

    def rotate(self, session: Session, acting: Acting, key_id: str, asked: KeyRotation) -> Changed[KeyCreated]:
        services = self._services
        made = rotate_key(
            session,
            key_id,
            asked.overlap_s,
            within=acting.within(session),
            actor=acting.actor,
            peppers=services.peppers,
            clock=services.clock,
            ids=services.ids,
        )
        return created(key_by_id(session, key_id, None), made), made.publish
