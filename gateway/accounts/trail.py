"""The audit log: every administrative act, written in the transaction of the act itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from gateway.accounts.models import NAME_LENGTH_MAX, AuditEntry

ActorKind = Literal["user", "key", "cli", "system"]
PAGE_MAX = 1_000
ADDRESS_LENGTH_MAX = 64


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, and from where. `id`: of the user or key; of the command line the name of the account."""

    kind: ActorKind
    id: str
    name: str = ""
    address: str = ""
    request_id: str = ""

    @property
    def label(self) -> str:
        return f"{self.kind}:{self.id}"[:NAME_LENGTH_MAX]


SYSTEM = Actor("system", "tramontane")


@dataclass(frozen=True, slots=True)
class Target:
    kind: str
    id: str


def record(
    session: Session,
    actor: Actor,
    action: str,
    target: Target,
    *,
    organisation: str,
    now_ms: int,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """`action` is such as api_key.create; `before` and `after` are what changed, JSON, never a secret."""
    session.add(
        AuditEntry(
            at_ms=now_ms,
            actor_kind=actor.kind,
            actor_id=actor.id[:NAME_LENGTH_MAX],
            actor_name=actor.name[:NAME_LENGTH_MAX],
            organisation=organisation,
            action=action,
            target_kind=target.kind,
            target_id=target.id,
            before=None if before is None else dict(before),
            after=None if after is None else dict(after),
            address=actor.address[:ADDRESS_LENGTH_MAX],
            request_id=actor.request_id[:ADDRESS_LENGTH_MAX],
        )
    )
    session.flush()


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """None: whichever. `actors` and `targets` are ids; `from_ms` counts, `until_ms` does not."""

    actors: tuple[str, ...] | None = None
    action: str | None = None
    targets: tuple[str, ...] | None = None
    from_ms: int | None = None
    until_ms: int | None = None


EVERYTHING = AuditFilter()


def list_audit(
    session: Session,
    *,
    within: str | None,
    before_id: int | None = None,
    count: int = 100,
    wanted: AuditFilter = EVERYTHING,
) -> list[AuditEntry]:
    """A page, youngest first; `before_id` is the last id of the page before. `within`: of one organisation; None: of
    all, for the operator.
    """
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(min(count, PAGE_MAX))
    if within is not None:
        query = query.where(AuditEntry.organisation == within)
    if before_id is not None:
        query = query.where(AuditEntry.id < before_id)
    return list(session.scalars(query.where(*_conditions(wanted))))


def audit_actions(session: Session, *, within: str | None) -> list[str]:
    """Every action in the log, by name: one look into the index for each, however long the log is."""
    here = () if within is None else (AuditEntry.organisation == within,)
    known = select(func.min(AuditEntry.action).label("action")).where(*here).cte("known", recursive=True)
    following = select(func.min(AuditEntry.action)).where(*here, AuditEntry.action > known.c.action).scalar_subquery()
    known = known.union_all(select(following).where(known.c.action.is_not(None)))
    return [action for action in session.scalars(select(known.c.action)) if action is not None]


def _conditions(wanted: AuditFilter) -> Iterator[ColumnElement[bool]]:
    if wanted.actors is not None:
        yield AuditEntry.actor_id.in_(wanted.actors)
    if wanted.action is not None:
        yield AuditEntry.action == wanted.action
    if wanted.targets is not None:
        yield AuditEntry.target_id.in_(wanted.targets)
    if wanted.from_ms is not None:
        yield AuditEntry.at_ms >= wanted.from_ms
    if wanted.until_ms is not None:
        yield AuditEntry.at_ms < wanted.until_ms
