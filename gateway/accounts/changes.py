"""A change of fields of an organisation or a workspace, as every such change is made."""

from collections.abc import Mapping

from sqlalchemy.orm import Session

from core.clock import Clock
from gateway.accounts.generations import Change, generation_of, raise_generation
from gateway.accounts.models import Organisation, Workspace
from gateway.accounts.names import flush_named
from gateway.accounts.trail import Actor, Target, record


def change_fields(
    session: Session,
    found: Organisation | Workspace,
    verb: str,
    values: Mapping[str, object],
    actor: Actor,
    clock: Clock,
) -> Change:
    """What is so already is not done again, but its generation is answered, so that it can be published again. Raises
    PlatformError (CONFLICT) for a name that is taken.
    """
    if isinstance(found, Workspace):
        kind, home = "workspace", found.organisation_id
    else:
        kind, home = "organisation", found.id
    before = {name: getattr(found, name) for name in values}
    if before == values:
        return Change(found.id, (generation_of(session, home),))
    for name, value in values.items():
        setattr(found, name, value)
    flush_named(session, found.name)
    target = Target(kind, found.id)
    now_ms = clock.now_ms()
    record(session, actor, f"{kind}.{verb}", target, organisation=home, now_ms=now_ms, before=before, after=values)
    return Change(found.id, (raise_generation(session, home),))
