"""Workspaces of an organisation. `within` is the organisation whose objects the caller may touch; what lies outside
does not exist for him. None: all, for the operator.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.clock import Clock
from core.errors import CONFLICT, NOT_FOUND, VALIDATION, PlatformError
from core.ids import IdSource
from gateway.accounts.changes import change_fields
from gateway.accounts.generations import Change, generation_of
from gateway.accounts.models import Organisation, Workspace
from gateway.accounts.names import checked_name, flush_named
from gateway.accounts.organisations import ID_BYTES
from gateway.accounts.trail import Actor, Target, record


def create_workspace(
    session: Session,
    organisation: str,
    name: str,
    *,
    actor: Actor,
    clock: Clock,
    ids: IdSource,
    lenient: bool | None = None,
) -> Workspace:
    """In the organisation with this id. Nothing is to be published: no principal knows it yet."""
    if session.get(Organisation, organisation) is None:
        raise PlatformError(NOT_FOUND, f"There is no organisation {organisation!r}.")
    now_ms = clock.now_ms()
    made = Workspace(
        id=ids.token(ID_BYTES),
        organisation_id=organisation,
        name=checked_name(name),
        is_default=False,
        lenient=lenient,
        created_ms=now_ms,
        archived_ms=None,
    )
    session.add(made)
    flush_named(session, name)
    after = {"name": name, "lenient": lenient}
    target = Target("workspace", made.id)
    record(session, actor, "workspace.create", target, organisation=organisation, now_ms=now_ms, after=after)
    return made


def find_workspace(session: Session, name_or_id: str, *, within: str | None) -> Workspace:
    """Raises PlatformError: NOT_FOUND, or VALIDATION for a name that several organisations have."""
    query = select(Workspace).where((Workspace.id == name_or_id) | (Workspace.name == name_or_id)).limit(2)
    if within is not None:
        query = query.where(Workspace.organisation_id == within)
    found = session.scalars(query).all()
    if not found:
        raise PlatformError(NOT_FOUND, f"There is no workspace {name_or_id!r}.")
    if len(found) > 1:
        raise PlatformError(VALIDATION, f"Several organisations have a workspace {name_or_id!r}; give its id.")
    return found[0]


def default_workspace_of(session: Session, organisation: str) -> str:
    """Its id; every organisation has one."""
    return session.scalars(
        select(Workspace.id).where(Workspace.organisation_id == organisation, Workspace.is_default)
    ).one()


def list_workspaces(
    session: Session, *, within: str | None, offset: int = 0, count: int | None = None
) -> list[Workspace]:
    """Oldest first, archived ones too."""
    query = select(Workspace).order_by(Workspace.created_ms, Workspace.id).offset(offset).limit(count)
    if within is not None:
        query = query.where(Workspace.organisation_id == within)
    return list(session.scalars(query))


def rename_workspace(
    session: Session, workspace: str, name: str, *, within: str | None, actor: Actor, clock: Clock
) -> Change:
    return _change(session, workspace, "rename", {"name": checked_name(name)}, within, actor, clock)


def set_workspace_lenient(
    session: Session, workspace: str, lenient: bool | None, *, within: str | None, actor: Actor, clock: Clock
) -> Change:
    """None: as its organisation."""
    return _change(session, workspace, "set_lenient", {"lenient": lenient}, within, actor, clock)


def archive_workspace(session: Session, workspace: str, *, within: str | None, actor: Actor, clock: Clock) -> Change:
    """For good: none of its keys is valid any more, its name stays taken, its usage stays. Not the default one."""
    found = find_workspace(session, workspace, within=within)
    if found.is_default:
        raise PlatformError(CONFLICT, "The default workspace of an organisation cannot be archived.")
    if found.archived_ms is not None:
        return Change(found.id, (generation_of(session, found.organisation_id),))
    return _change(session, found.id, "archive", {"archived_ms": clock.now_ms()}, within, actor, clock)


def _change(
    session: Session,
    workspace: str,
    verb: str,
    values: dict[str, object],
    within: str | None,
    actor: Actor,
    clock: Clock,
) -> Change:
    found = find_workspace(session, workspace, within=within)
    differs = any(getattr(found, name) != value for name, value in values.items())
    if found.archived_ms is not None and differs:
        raise PlatformError(CONFLICT, f"The workspace {found.name!r} is archived, and stays as it is.")
    return change_fields(session, found, verb, values, actor, clock)
