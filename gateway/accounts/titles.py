"""What the objects are called that the audit log knows by their ids."""

from collections.abc import Iterable

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from gateway.accounts.models import ApiKey, Organisation, Workspace
from gateway.accounts.people import User
from gateway.accounts.trail import Target

Names = dict[Target, str]
OF_ORGANISATION = ("organisation", "customer", "credit_account")


def target_names(session: Session, targets: Iterable[Target]) -> Names:
    """Of users, organisations, workspaces and keys; others, and what is gone, are left out. At most four queries."""
    ids: dict[str, set[str]] = {}
    for target in targets:
        ids.setdefault(target.kind, set()).add(target.id)
    names: Names = {}
    person: ColumnElement[str] = func.coalesce(User.email, User.name)
    names |= _named(session, ("user",), ids, User.id, person)
    names |= _named(session, OF_ORGANISATION, ids, Organisation.id, Organisation.name)
    names |= _named(session, ("workspace",), ids, Workspace.id, Workspace.name)
    names |= _named(session, ("api_key",), ids, ApiKey.id, ApiKey.name)
    return names


def _named(
    session: Session,
    kinds: tuple[str, ...],
    ids: dict[str, set[str]],
    key: InstrumentedAttribute[str],
    name: ColumnElement[str] | InstrumentedAttribute[str],
) -> Names:
    wanted = {each for kind in kinds for each in ids.get(kind, ())}
    if not wanted:
        return {}
    found = {row[0]: row[1] for row in session.execute(select(key, name).where(key.in_(sorted(wanted))))}
    return {Target(kind, each): found[each] for kind in kinds for each in ids.get(kind, ()) if each in found}
