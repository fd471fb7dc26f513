"""The audit log and refusals as /v1/admin shows them."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from core.meter.refusals import RefusalEvent
from gateway.accounts.models import AuditEntry
from gateway.schemas.admin.fields import iso


class ActorShown(BaseModel):
    kind: str = Field(description="user, key, cli or system.")
    id: str
    name: str


class TargetShown(BaseModel):
    kind: str
    id: str


class AuditShown(BaseModel):
    """One act. `before` and `after` hold what it changed."""

    id: int
    created_at: str
    actor: ActorShown
    organisation_id: str | None = Field(description="null: of the installation.")
    action: str = Field(description="Such as api_key.create.")
    target: TargetShown
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    address: str
    request_id: str


class AuditPage(BaseModel):
    object: Literal["list"] = "list"
    data: list[AuditShown]
    next_before_id: int | None = Field(description="`before_id` of the next page; null: this is the last.")


class RefusalShown(BaseModel):
    """One refused request; `rule` and what follows are null where the request itself was wrong."""

    request_id: str
    at: str
    workspace_id: str
    key_id: str
    route: str
    tier: str | None
    status: int
    code: str
    rule: str | None
    scope: str | None
    limit: int | None
    remaining: int | None
    left_out: int = Field(description="So many more in the same second were only counted.")


def shown_audit(entry: AuditEntry) -> AuditShown:
    return AuditShown(
        id=entry.id,
        created_at=iso(entry.at_ms),
        actor=ActorShown(kind=entry.actor_kind, id=entry.actor_id, name=entry.actor_name),
        organisation_id=entry.organisation or None,
        action=entry.action,
        target=TargetShown(kind=entry.target_kind, id=entry.target_id),
        before=entry.before,
        after=entry.after,
        address=entry.address,
        request_id=entry.request_id,
    )


def shown_refusal(event: RefusalEvent) -> RefusalShown:
    by_rule = bool(event.rule)
    return RefusalShown(
        request_id=event.request_id,
        at=iso(event.at_ms),
        workspace_id=event.workspace,
        key_id=event.key_id,
        route=event.route,
        tier=event.tier or None,
        status=event.status,
        code=event.code,
        rule=event.rule or None,
        scope=event.scope or None,
        limit=event.limit if by_rule else None,
        remaining=event.remaining if by_rule else None,
        left_out=event.left_out,
    )
