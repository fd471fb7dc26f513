"""Organisations, workspaces, keys and people. What is not given stays as it is."""

from __future__ import annotations

from typing import List, Optional, Sequence, Union

from tramontane._async.transport import AsyncTransport
from tramontane.admin_types import (
    Departure,
    Invite,
    Key,
    KeyList,
    Member,
    MemberRole,
    NewInvite,
    NewKey,
    Organisation,
    ServiceAccount,
    Workspace,
    WorkspaceRole,
)
from tramontane.wire.admin import Desk, place
from tramontane.wire.calls import UNSET, Unset, given, said

MaybeText = Union[None, str, Unset]


class AsyncOrganisations:
    """The operator's."""

    def __init__(self, transport: AsyncTransport, desk: Desk) -> None:
        self._transport = transport
        self._desk = desk

    async def list(self, *, limit: Optional[int] = None, offset: Optional[int] = None) -> List[Organisation]:
        """Oldest first; 100 if no limit is given."""
        return await self._transport.run(self._desk.listed("/organisations", Organisation, limit=limit, offset=offset))

    async def create(
        self,
        name: str,
        *,
        plan: Optional[str] = None,
        lenient: Optional[bool] = None,
        time_zone: Optional[str] = None,
    ) -> Organisation:
        """With its default workspace, its customer and its plan's first credit."""
        body = given(name=name, plan=plan, lenient=lenient, time_zone=time_zone)
        return await self._transport.run(self._desk.create("/organisations", Organisation, body))

    async def retrieve(self, organisation_id: str) -> Organisation:
        return await self._transport.run(self._desk.get(place("/organisations/*", organisation_id), Organisation))

    async def update(
        self,
        organisation_id: str,
        *,
        name: Optional[str] = None,
        plan: Optional[str] = None,
        lenient: Optional[bool] = None,
    ) -> Organisation:
        body = given(name=name, plan=plan, lenient=lenient)
        path = place("/organisations/*", organisation_id)
        return await self._transport.run(self._desk.patch(path, Organisation, body))

    async def suspend(self, organisation_id: str) -> Organisation:
        """None of its keys is valid until it is resumed; open streams end."""
        path = place("/organisations/*/suspend", organisation_id)
        return await self._transport.run(self._desk.post(path, Organisation))

    async def resume(self, organisation_id: str) -> Organisation:
        path = place("/organisations/*/resume", organisation_id)
        return await self._transport.run(self._desk.post(path, Organisation))


class AsyncWorkspaces:
    def __init__(self, transport: AsyncTransport, desk: Desk) -> None:
        self._transport = transport
        self._desk = desk

    async def list(self, *, limit: Optional[int] = None, offset: Optional[int] = None) -> List[Workspace]:
        """Oldest first, archived ones too."""
        return await self._transport.run(self._desk.listed("/workspaces", Workspace, limit=limit, offset=offset))

    async def create(self, name: str, *, lenient: Optional[bool] = None) -> Workspace:
        body = given(name=name, lenient=lenient)
        return await self._transport.run(self._desk.create("/workspaces", Workspace, body))

    async def retrieve(self, workspace_id: str) -> Workspace:
        return await self._transport.run(self._desk.get(place("/workspaces/*", workspace_id), Workspace))

    async def update(
        self, workspace_id: str, *, name: Optional[str] = None, lenient: Union[bool, Unset, None] = UNSET
    ) -> Workspace:
        """`lenient` None: as the organisation."""
        body = {**given(name=name), **said(lenient=lenient)}
        return await self._transport.run(self._desk.patch(place("/workspaces/*", workspace_id), Workspace, body))

    async def archive(self, workspace_id: str) -> None:
        """For good: none of its keys is valid any more."""
        await self._transport.run(self._desk.delete(place("/workspaces/*", workspace_id)))


class AsyncKeys:
    def __init__(self, transport: AsyncTransport, desk: Desk) -> None:
        self._transport = transport
        self._desk = desk

    async def list(
        self,
        *,
        name: Optional[str] = None,
        workspace_id: Optional[str] = None,
        limit: Optional[int] = None,
        offset: Optional[int] = None,
    ) -> List[Key]:
        """Oldest first, revoked ones too; `name` is a part of it."""
        call = self._desk.get("/api-keys", KeyList, name=name, workspace_id=workspace_id, limit=limit, offset=offset)
        return (await self._transport.run(call)).keys

    async def create(
        self,
        name: Optional[str] = None,
        *,
        workspace_id: Optional[str] = None,
        user_id: Optional[str] = None,
        expiration: Optional[str] = None,
        scopes: Optional[Sequence[str]] = None,
        tiers: Optional[Sequence[str]] = None,
        networks: Optional[Sequence[str]] = None,
    ) -> NewKey:
        """`key` of what comes back is shown only now. `expiration` is ISO 8601 with its zone, or a date."""
        body = given(
            name=name,
            workspace_uuid=workspace_id,
            user_id=user_id,
            expiration=expiration,
            scopes=scopes,
            tiers=tiers,
            networks=networks,
        )
        return await self._transport.run(self._desk.create("/api-keys", NewKey, body))

    async def retrieve(self, key_id: str) -> Key:
        return await self._transport.run(self._desk.get(place("/api-keys/*", key_id), Key))

    async def update(
        self,
        key_id: str,
        *,
        name: Optional[str] = None,
        expiration: MaybeText = UNSET,
        scopes: Optional[Sequence[str]] = None,
        tiers: Union[Sequence[str], Unset, None] = UNSET,
        networks: Optional[Sequence[str]] = None,
    ) -> Key:
        """`expiration` None: for ever. `tiers` None: all."""
        body = {**given(name=name, scopes=scopes, networks=networks), **said(expiration=expiration, tiers=tiers)}
        return await self._transport.run(self._desk.patch(place("/api-keys/*", key_id), Key, body))

    async def revoke(self, key_id: str) -> None:
        """For good, within a second, open streams included."""
        await self._transport.run(self._desk.delete(place("/api-keys/*", key_id), repeatable=True))

    async def rotate(self, key_id: str, *, overlap_s: Optional[int] = None) -> NewKey:
        """A new secret for the same id; the one before stays valid for `overlap_s` (a day if not given)."""
        body = given(overlap_s=overlap_s)
        return await self._transport.run(self._desk.create(place("/api-keys/*/rotate", key_id), NewKey, body))


class AsyncMembers:
    def __init__(self, transport: AsyncTransport, desk: Desk) -> None:
        self._transport = transport
        self._desk = desk

    async def list(self, *, limit: Optional[int] = None, offset: Optional[int] = None) -> List[Member]:
        """Members of the organisation or of one of its workspaces, service accounts too."""
        return await self._transport.run(self._desk.listed("/users", Member, limit=limit, offset=offset))

    async def create_service_account(self, name: str, *, role: Optional[str] = None) -> ServiceAccount:
        body = given(name=name, role=role)
        return await self._transport.run(self._desk.create("/users", ServiceAccount, body))

    async def set_role(self, user_id: str, role: str) -> MemberRole:
        """owner, admin, billing, developer or viewer."""
        return await self._transport.run(self._desk.patch(place("/users/*", user_id), MemberRole, {"role": role}))

    async def set_workspace_role(self, user_id: str, workspace_id: str, role: str) -> WorkspaceRole:
        """In one workspace; it adds to the role in the organisation."""
        path = place("/users/*/workspaces/*", user_id, workspace_id)
        return await self._transport.run(self._desk.put(path, WorkspaceRole, {"role": role}))

    async def remove_from_workspace(
        self, user_id: str, workspace_id: str, *, revoke_keys: Optional[bool] = None
    ) -> Departure:
        """A role in the organisation stays, and what it allows there."""
        path = place("/users/*/workspaces/*", user_id, workspace_id)
        return await self._transport.run(self._desk.remove(path, Departure, revoke_keys=revoke_keys))

    async def remove(self, user_id: str, *, revoke_keys: Optional[bool] = None) -> Departure:
        """With the keys that the member owns, unless `revoke_keys` is False."""
        call = self._desk.remove(place("/users/*", user_id), Departure, revoke_keys=revoke_keys)
        return await self._transport.run(call)


class AsyncInvites:
    def __init__(self, transport: AsyncTransport, desk: Desk) -> None:
        self._transport = transport
        self._desk = desk

    async def list(self) -> List[Invite]:
        """Those that can still be used."""
        return await self._transport.run(self._desk.listed("/invites", Invite))

    async def create(self, email: str, role: str, *, workspace_id: Optional[str] = None) -> NewInvite:
        """The link is mailed, or in `url` if the platform has no mail."""
        body = given(email=email, role=role, workspace_uuid=workspace_id)
        return await self._transport.run(self._desk.create("/invites", NewInvite, body))

    async def withdraw(self, invite_id: str) -> None:
        await self._transport.run(self._desk.delete(place("/invites/*", invite_id)))
