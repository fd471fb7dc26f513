"""A principal as SQL has it: a handful of queries for each key, asked once a minute at most."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_network

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from billing.calendar import windows
from billing.customers import time_zone_of
from billing.prices import SKEW_MS, price_schedules
from core.queue.rules import RuleKind
from gateway.accounts.keys import same_digest
from gateway.accounts.limits import SubjectKind
from gateway.accounts.models import ACTIVE, ApiKey, KeySecret, Limit, Organisation, Plan, Workspace
from gateway.accounts.rules import Bound, RuleIds, effective_rules
from gateway.accounts.scopes import INFERENCE
from gateway.principal import Principal, Standing

NOT_A_KEY = "Unauthorized: this is not a valid API key."
REVOKED = "Unauthorized: this API key was revoked."
EXPIRED = "Unauthorized: this API key has expired."
ROTATED = "Unauthorized: this secret of the API key was replaced; use the new one."
ARCHIVED = "Unauthorized: this API key's workspace was archived."
INACTIVE = "Inactive organisation: it is suspended; its administrators know why."


@dataclass(frozen=True, slots=True)
class Loaded:
    """Who a key stands for, or why for nobody; not beyond `until_ms`, if that is set."""

    principal: Principal | None = None
    refusal: str = ""
    until_ms: int | None = None


def load_principal(
    session: Session, key_id: str, digests: Sequence[str] | None, tiers: Sequence[str], now_ms: int
) -> Loaded:
    """`digests` are those of the whole key under every pepper, None for who was let in by a session of the console;
    `tiers` those that may have a price.
    """
    # The generation comes first, so that it is never younger than what it stands for.
    found = session.execute(_PARTS.where(ApiKey.id == key_id)).one_or_none()
    if found is None:
        return Loaded(refusal=NOT_A_KEY)
    key, workspace, organisation_id, organisation_lenient, status, generation, plan = found
    secret = None if digests is None else _secret_of(session, key_id, digests)
    if secret is None and digests is not None:
        return Loaded(refusal=NOT_A_KEY)
    secret_ends_ms = None if secret is None else secret.expires_ms
    refusal = _refusal(key, workspace, status, now_ms)
    if not refusal and secret_ends_ms is not None and secret_ends_ms <= now_ms:
        refusal = ROTATED
    if refusal:
        return Loaded(refusal=refusal)
    ids = RuleIds(organisation_id, workspace.id, key.id)
    zone = time_zone_of(session, organisation_id)
    bounds = _bounds(session, ids, plan.name)
    principal = Principal(
        key_id=key.id,
        workspace=workspace.id,
        organisation=organisation_id,
        scopes=frozenset(key.scopes),
        generation=generation,
        weight=plan.weight,
        rules=effective_rules(bounds, ids, cache(lambda kind: windows(kind, zone, now_ms - SKEW_MS))),
        prices=price_schedules(session, organisation_id, plan.name, tiers, now_ms),
        tiers=None if key.tiers is None else frozenset(key.tiers),
        networks=tuple(ip_network(network) for network in key.networks),
        lenient=organisation_lenient if workspace.lenient is None else workspace.lenient,
        user_id=key.owner or "",
        key_name=key.name,
        expires_ms=key.expires_ms,
    )
    ends = [at_ms for at_ms in (key.expires_ms, secret_ends_ms) if at_ms is not None]
    return Loaded(principal, until_ms=min(ends, default=None))


def inference_standing(session: Session, key_id: str, now_ms: int) -> Standing | None:
    """Of a key that may run inference now, whichever secret it came with; else None."""
    found = session.execute(_PARTS.where(ApiKey.id == key_id)).one_or_none()
    if found is None:
        return None
    key, workspace, _, _, status, generation, _ = found
    if INFERENCE not in key.scopes or _refusal(key, workspace, status, now_ms):
        return None
    return Standing(generation, key.expires_ms)


_PARTS = (
    select(
        ApiKey,
        Workspace,
        Organisation.id,
        Organisation.lenient,
        Organisation.status,
        Organisation.generation,
        Plan,
    )
    .join(Workspace, Workspace.id == ApiKey.workspace_id)
    .join(Organisation, Organisation.id == Workspace.organisation_id)
    .join(Plan, Plan.name == Organisation.plan)
)


def _refusal(key: ApiKey, workspace: Workspace, status: str, now_ms: int) -> str:
    """Why nobody may use it, or empty."""
    if key.revoked_ms is not None:
        return REVOKED
    if key.expires_ms is not None and key.expires_ms <= now_ms:
        return EXPIRED
    if workspace.archived_ms is not None:
        return ARCHIVED
    return "" if status == ACTIVE else INACTIVE


def _secret_of(session: Session, key_id: str, digests: Sequence[str]) -> KeySecret | None:
    """Found by the key's id and compared in constant time: the time tells nothing about a digest."""
    found = None
    for secret in session.scalars(select(KeySecret).where(KeySecret.key_id == key_id)):
        for digest in digests:
            if same_digest(secret.digest, digest):
                found = secret
    return found


def _bounds(session: Session, ids: RuleIds, plan: str) -> list[Bound]:
    subjects = (
        (SubjectKind.PLAN, plan),
        (SubjectKind.ORGANISATION, ids.organisation),
        (SubjectKind.CUSTOMER, ids.organisation),
        (SubjectKind.WORKSPACE, ids.workspace),
        (SubjectKind.KEY, ids.key),
    )
    wanted = or_(*(and_(Limit.subject_kind == kind.value, Limit.subject_id == name) for kind, name in subjects))
    return [
        Bound(SubjectKind(limit.subject_kind), RuleKind(limit.kind), limit.value, limit.tier, limit.hard)
        for limit in session.scalars(select(Limit).where(wanted))
    ]
