"""Links that work once: invitations, password resets, first log-ins. Of the token only the SHA-256 is kept.

A link is used by compare-and-set, so that of many who use it at once one succeeds.
"""

from dataclasses import dataclass
from enum import StrEnum

from pydantic import SecretStr
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from core.clock import Clock
from core.errors import NOT_FOUND, PlatformError
from core.ids import IdSource
from gateway.accounts.models import Organisation
from gateway.accounts.organisations import ID_BYTES
from gateway.accounts.people import OneTimeLink, User
from gateway.accounts.roles import Role
from gateway.accounts.sessions import TOKEN_BYTES, digest_of
from gateway.accounts.trail import Actor, Target, record

HOUR_MS = 3_600_000
KEPT_MS = 30 * 24 * HOUR_MS
PRUNED_AT_ONCE = 100
PATH = "/console/links/"


class Purpose(StrEnum):
    INVITE = "invite"
    RESET = "reset"
    FIRST_LOGIN = "first_login"


VALID_MS = {Purpose.INVITE: 72 * HOUR_MS, Purpose.RESET: HOUR_MS, Purpose.FIRST_LOGIN: 24 * HOUR_MS}


@dataclass(frozen=True, slots=True)
class Link:
    """`token` is shown or mailed once and kept nowhere. `email` None: nobody's yet. `place`: what one is invited to."""

    id: str
    token: SecretStr
    purpose: Purpose
    email: str | None
    expires_ms: int
    place: str = ""

    def url(self, public_url: str) -> SecretStr:
        """`public_url` is where browsers find the gateway, such as https://api.example.com."""
        return SecretStr(f"{public_url.rstrip('/')}{PATH}{self.token.get_secret_value()}")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a link is good for. `email` None: whoever uses it says his own. `has_account`: to accept it one logs in;
    else one chooses a password.
    """

    id: str
    purpose: Purpose
    email: str | None
    user: str | None
    organisation: str | None
    workspace: str | None
    role: Role | None
    organisation_name: str
    has_account: bool
    expires_ms: int


def make_link(
    session: Session, row: OneTimeLink, *, actor: Actor, clock: Clock, ids: IdSource, place: str = ""
) -> Link:
    """`row` says what for; the rest of it is filled in here."""
    token, purpose, now_ms = ids.token(TOKEN_BYTES), Purpose(row.purpose), clock.now_ms()
    _prune(session, now_ms)
    row.id, row.digest = ids.token(ID_BYTES), digest_of(token)
    row.created_by, row.created_ms, row.expires_ms = actor.label, now_ms, now_ms + VALID_MS[purpose]
    session.add(row)
    session.flush()
    after = {"email": row.email, "user": row.user_id, "role": row.role, "workspace": row.workspace_id}
    target = Target("link", row.id)
    organisation = row.organisation_id or ""
    record(session, actor, f"{purpose.value}.create", target, organisation=organisation, now_ms=now_ms, after=after)
    return Link(row.id, SecretStr(token), purpose, row.email, row.expires_ms, place)


def offer_of(session: Session, token: str, clock: Clock) -> Offer:
    """Without using it. Raises PlatformError (NOT_FOUND), the same for used, expired, withdrawn, never made."""
    query = select(OneTimeLink).where(OneTimeLink.digest == digest_of(token), OneTimeLink.used_ms.is_(None))
    row = session.scalars(query).one_or_none()
    if row is None or row.expires_ms <= clock.now_ms():
        raise unusable()
    user = _user_of(session, row)
    if user is not None and user.disabled_ms is not None:
        raise unusable()
    organisation = None if row.organisation_id is None else session.get(Organisation, row.organisation_id)
    return Offer(
        id=row.id,
        purpose=Purpose(row.purpose),
        email=row.email,
        user=None if user is None else user.id,
        organisation=row.organisation_id,
        workspace=row.workspace_id,
        role=None if row.role is None else Role(row.role),
        organisation_name="" if organisation is None else organisation.name,
        has_account=Purpose(row.purpose) is Purpose.INVITE and user is not None,
        expires_ms=row.expires_ms,
    )


def use_link(session: Session, link_id: str, clock: Clock) -> None:
    """Whoever comes second, or too late, gets PlatformError (NOT_FOUND)."""
    now_ms = clock.now_ms()
    used = session.execute(
        update(OneTimeLink)
        .where(OneTimeLink.id == link_id, OneTimeLink.used_ms.is_(None), OneTimeLink.expires_ms > now_ms)
        .values(used_ms=now_ms)
        .returning(OneTimeLink.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if used is None:
        raise unusable()


def unusable() -> PlatformError:
    return PlatformError(NOT_FOUND, "This link was used, withdrawn, or is too old: ask for another.")


def _user_of(session: Session, row: OneTimeLink) -> User | None:
    if row.user_id is not None:
        return session.get(User, row.user_id)
    if row.email is None:
        return None
    return session.scalars(select(User).where(User.email == row.email)).one_or_none()


def _prune(session: Session, now_ms: int) -> None:
    old = select(OneTimeLink.id).where(OneTimeLink.expires_ms <= now_ms - KEPT_MS).limit(PRUNED_AT_ONCE)
    gone = session.scalars(old.with_for_update(skip_locked=True)).all()
    if gone:
        session.execute(delete(OneTimeLink).where(OneTimeLink.id.in_(gone)))
