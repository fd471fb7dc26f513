"""What the admin API answers about keys, organisations, people, acts and refusals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

from tramontane.wire.decode import Answer


@dataclass(frozen=True)
class Key(Answer):
    """`can_delete` False: it is revoked."""

    key_id: str
    name: str
    hidden_key: str
    created_at: str
    workspace_id: str
    workspace_name: str
    organisation_id: str
    created_by: str
    scopes: List[str]
    can_delete: bool
    networks: List[str]
    expiration_date: Optional[str] = None
    user_id: Optional[str] = None
    product: str = "API"
    last_used: Optional[str] = None
    revoked_at: Optional[str] = None
    overlap_until: Optional[str] = None
    tiers: Optional[List[str]] = None


@dataclass(frozen=True)
class NewKey(Key):
    """`key` is the key itself: shown only now, and never in a repr."""

    key: str = field(default="", repr=False)


@dataclass(frozen=True)
class KeyList(Answer):
    keys: List[Key]


@dataclass(frozen=True)
class Organisation(Answer):
    """`status`: active or suspended."""

    id: str
    name: str
    plan: str
    status: str
    lenient: bool
    created_at: str


@dataclass(frozen=True)
class Workspace(Answer):
    id: str
    name: str
    organisation_id: str
    is_default: bool
    created_at: str
    lenient: Optional[bool] = None
    archived_at: Optional[str] = None


@dataclass(frozen=True)
class Member(Answer):
    """`role` None: only in workspaces."""

    id: str
    kind: str
    name: str
    workspace_roles: Dict[str, str]
    email: Optional[str] = None
    role: Optional[str] = None
    disabled_at: Optional[str] = None
    last_login_at: Optional[str] = None


@dataclass(frozen=True)
class MemberRole(Answer):
    id: str
    role: str


@dataclass(frozen=True)
class WorkspaceRole(Answer):
    id: str
    workspace_id: str
    role: str


@dataclass(frozen=True)
class ServiceAccount(Answer):
    id: str
    role: str
    name: str


@dataclass(frozen=True)
class Departure(Answer):
    id: str
    keys_revoked: List[str]
    keys_kept: List[str]


@dataclass(frozen=True)
class Invite(Answer):
    id: str
    email: str
    role: str
    created_by: str
    created_at: str
    expires_at: str
    workspace_id: Optional[str] = None


@dataclass(frozen=True)
class NewInvite(Answer):
    """`url` is the link, shown only now, and only where no mail is sent; never in a repr."""

    id: str
    email: str
    role: str
    expires_at: str
    mailed: bool
    url: Optional[str] = field(default=None, repr=False)


@dataclass(frozen=True)
class Actor(Answer):
    kind: str
    id: str
    name: str


@dataclass(frozen=True)
class Target(Answer):
    kind: str
    id: str


@dataclass(frozen=True)
class AuditEntry(Answer):
    id: int
    created_at: str
    actor: Actor
    action: str
    target: Target
    address: str
    request_id: str
    organisation_id: Optional[str] = None
    before: Optional[Dict[str, Any]] = None
    after: Optional[Dict[str, Any]] = None


@dataclass(frozen=True)
class AuditPage(Answer):
    """`next_before_id` None: this is the last page."""

    data: List[AuditEntry]
    next_before_id: Optional[int] = None
    object: str = "list"


@dataclass(frozen=True)
class RefusedRequest(Answer):
    request_id: str
    at: str
    workspace_id: str
    key_id: str
    route: str
    status: int
    code: str
    left_out: int
    tier: Optional[str] = None
    rule: Optional[str] = None
    scope: Optional[str] = None
    limit: Optional[int] = None
    remaining: Optional[int] = None
