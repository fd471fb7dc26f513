"""One member: roles in the organisation and its workspaces, keys, leaving; for operators the account itself."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from gateway.accounts.invitations import password_link
from gateway.accounts.links import Link
from gateway.accounts.members import (
    Departure,
    MemberRow,
    find_member,
    list_members,
    remove_member,
    remove_workspace_member,
    set_role,
    set_workspace_role,
)
from gateway.accounts.people import PERSON
from gateway.accounts.roles import Permission, Role
from gateway.accounts.trail import Target, record
from gateway.accounts.users import disable_user, enable_user, find_user, owned_keys
from gateway.accounts.workspaces import list_workspaces
from gateway.console.desk import HOME, Changed, Console
from gateway.console.entrance import NoFields
from gateway.console.member_forms import (
    RemovalForm,
    RoleForm,
    WorkspaceRoleForm,
    roles_to_give,
    workspace_roles_to_give,
)
from gateway.console.members import WORKSPACES_MAX, answer_link
from gateway.console.visitor import Place

KEYS_SHOWN_MAX = 20


def member_router(console: Console) -> APIRouter:
    router = console.router()
    _add_roles(router, console)
    _add_endings(router, console)
    _add_account(router, console)

    @router.get("/o/{organisation}/members/{user}")
    async def show(request: Request, organisation: str, user: str) -> Response:
        place = await console.enter(request, organisation, Permission.MEMBERS_READ)
        context = await console.read(lambda session: _page(session, place, user))
        return await console.page(request, "pages/member.html", context, place=place)

    return router


def _add_roles(router: APIRouter, console: Console) -> None:
    clock = console.services.clock

    @router.post("/o/{organisation}/members/{user}/role")
    async def change_role(request: Request, organisation: str, user: str) -> Response:
        place = await console.enter(request, organisation)
        place.visitor.access.require(Permission.MEMBERS_MANAGE, place.id)
        asked = await console.form(request, place.visitor, RoleForm)

        def run(session: Session) -> Changed[None]:
            visitor = place.visitor
            find_user(session, user, within=place.id)
            done = set_role(
                session, user, place.id, asked.role, access=visitor.access, actor=visitor.actor, clock=clock
            )
            return None, done.publish

        await console.change(run)
        return console.done(request, f"{place.path}/members/{user}", f"The role is {asked.role.value} now.")

    @router.post("/o/{organisation}/members/{user}/workspaces")
    async def put_workspace_role(request: Request, organisation: str, user: str) -> Response:
        place = await console.enter(request, organisation, Permission.MEMBERS_MANAGE)
        asked = await console.form(request, place.visitor, WorkspaceRoleForm)

        def run(session: Session) -> Changed[None]:
            visitor = place.visitor
            find_user(session, user, within=place.id)
            done = set_workspace_role(
                session,
                user,
                asked.workspace,
                asked.role,
                within=place.id,
                access=visitor.access,
                actor=visitor.actor,
                clock=clock,
            )
            return None, done.publish

        await console.change(run)
        return console.done(request, f"{place.path}/members/{user}", "The role in the workspace is set.")


def _add_endings(router: APIRouter, console: Console) -> None:
    clock = console.services.clock

    @router.post("/o/{organisation}/members/{user}/workspaces/{workspace}/remove")
    async def leave_workspace(request: Request, organisation: str, user: str, workspace: str) -> Response:
        place = await console.enter(request, organisation, Permission.MEMBERS_MANAGE)
        asked = await console.form(request, place.visitor, RemovalForm)

        def run(session: Session) -> Changed[tuple[Departure, bool]]:
            visitor = place.visitor
            left = remove_workspace_member(
                session,
                user,
                workspace,
                within=place.id,
                access=visitor.access,
                actor=visitor.actor,
                clock=clock,
                revoke_keys=bool(asked.keys),
            )
            stays = bool(list_members(session, place.id, access=visitor.access, only=user))
            return (left, stays), left.publish

        left, stays = await console.change(run)
        path = f"{place.path}/members/{user}" if stays else f"{place.path}/members"
        return console.done(request, path, f"The role in the workspace has ended. {_keys_told(left)}")

    @router.post("/o/{organisation}/members/{user}/remove")
    async def remove(request: Request, organisation: str, user: str) -> Response:
        """Anybody may leave by themselves."""
        place = await console.enter(request, organisation)
        asked = await console.form(request, place.visitor, RemovalForm)

        def run(session: Session) -> Changed[Departure]:
            visitor = place.visitor
            left = remove_member(
                session,
                user,
                place.id,
                access=visitor.access,
                actor=visitor.actor,
                clock=clock,
                revoke_keys=bool(asked.keys),
            )
            return left, left.publish

        left = await console.change(run)
        himself = user == place.visitor.signed_in.user and not place.visitor.access.operator
        path = HOME if himself else f"{place.path}/members"
        return console.done(request, path, f"The member is removed. {_keys_told(left)}")


def _add_account(router: APIRouter, console: Console) -> None:
    """What is the installation's, not the organisation's: for operators."""
    services = console.services
    clock = services.clock

    @router.post("/o/{organisation}/members/{user}/password-link")
    async def link(request: Request, organisation: str, user: str) -> Response:
        place = await _operate(console, request, organisation)
        await console.form(request, place.visitor, NoFields)

        def run(session: Session) -> Changed[Link]:
            who = find_user(session, user, within=place.id).id
            visitor, actor = place.visitor, place.visitor.actor
            made = password_link(session, who, access=visitor.access, actor=actor, clock=clock, ids=services.ids)
            target = Target("user", who)
            record(session, actor, "user.password_link", target, organisation=place.id, now_ms=clock.now_ms())
            return made, ()

        made = await console.change(run)
        return await answer_link(console, request, place, made, "link-form", f"{place.path}/members/{user}")

    @router.post("/o/{organisation}/members/{user}/disable")
    async def disable(request: Request, organisation: str, user: str) -> Response:
        place = await _operate(console, request, organisation)
        asked = await console.form(request, place.visitor, RemovalForm)

        def run(session: Session) -> Changed[None]:
            who, revoke = find_user(session, user, within=place.id).id, bool(asked.keys)
            by = place.visitor.actor
            done = disable_user(session, who, actor=by, clock=clock, revoke_keys=revoke, organisation=place.id)
            return None, done.publish

        await console.change(run)
        told = "The account is disabled: its sessions have ended, nobody logs in with it."
        return console.done(request, f"{place.path}/members/{user}", told)

    @router.post("/o/{organisation}/members/{user}/enable")
    async def enable(request: Request, organisation: str, user: str) -> Response:
        place = await _operate(console, request, organisation)
        await console.form(request, place.visitor, NoFields)

        def run(session: Session) -> Changed[None]:
            who = find_user(session, user, within=place.id).id
            enable_user(session, who, actor=place.visitor.actor, clock=clock, organisation=place.id)
            return None, ()

        await console.change(run)
        return console.done(request, f"{place.path}/members/{user}", "The account is enabled again.")


async def _operate(console: Console, request: Request, organisation: str) -> Place:
    place = await console.enter(request, organisation)
    place.visitor.access.require_operator()
    return place


def _page(session: Session, place: Place, user: str) -> Mapping[str, Any]:
    member = find_member(session, user, place.id, access=place.visitor.access)
    workspaces = list_workspaces(session, within=place.id, count=WORKSPACES_MAX)
    names = {each.id: each.name for each in workspaces}
    manages = [each for each in workspaces if place.may(Permission.MEMBERS_MANAGE, each.id)]
    mine = member.user == place.visitor.signed_in.user
    keys = owned_keys(session, member.user, place.id) if manages or mine else []
    return {
        "member": member,
        "service": member.kind != PERSON,
        "mine": mine,
        "homes": [
            {
                "id": home,
                "name": names.get(home, home),
                "role": role.value,
                "manages": place.may(Permission.MEMBERS_MANAGE, home),
                # Of somebody with a role in the organisation the keys go on.
                "keys": [key.name for key in keys if key.workspace_id == home and member.role is None],
            }
            for home, role in sorted(member.workspace_roles.items(), key=lambda found: names.get(found[0], ""))
        ],
        "keys": keys,
        "keys_shown_max": KEYS_SHOWN_MAX,
        "workspace_names": names,
        "roles": roles_to_give(place, service=member.kind != PERSON),
        "workspace_roles": workspace_roles_to_give(),
        "workspaces": [(each.id, each.name) for each in manages if each.archived_ms is None],
        "may_change": place.may(Permission.MEMBERS_MANAGE) and _may_touch(place, member),
        "may_remove": mine or (place.may(Permission.MEMBERS_MANAGE) and _may_touch(place, member)),
    }


def _may_touch(place: Place, member: MemberRow) -> bool:
    """Owners are changed by owners."""
    return place.may(Permission.OWNERS_MANAGE) or member.role is None or member.role is not Role.OWNER


def _keys_told(left: Departure) -> str:
    revoked = len(left.keys_revoked)
    if revoked:
        return f"{revoked} key{'' if revoked == 1 else 's'} of theirs {'is' if revoked == 1 else 'are'} revoked."
    return "Their keys go on." if left.keys_kept else ""
