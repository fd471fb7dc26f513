"""Who may come in: invitations to organisations, links to a first password and to another one.

Functions take a unit of work's session and never commit. The link goes to `letters.deliver` after the commit.
"""

from dataclasses import dataclass

from sqlalchemy import Select, delete, func, select
from sqlalchemy.orm import Session

from core.clock import Clock
from core.errors import CONFLICT, NOT_ALLOWED, NOT_FOUND, PlatformError
from core.ids import IdSource
from gateway.accounts.access import Access
from gateway.accounts.generations import Change
from gateway.accounts.links import Link, Offer, Purpose, make_link, offer_of, use_link
from gateway.accounts.members import put_member
from gateway.accounts.organisations import find_organisation
from gateway.accounts.people import PERSON, Member, OneTimeLink, User, WorkspaceMember
from gateway.accounts.roles import Permission, Role
from gateway.accounts.sessions import Origin, SignedIn
from gateway.accounts.throttle import Counted, claim_attempt, subjects_of
from gateway.accounts.trail import Actor, Target, record
from gateway.accounts.users import checked_email, find_user, folded, user_by_email
from gateway.accounts.workspaces import find_workspace

OPEN_MAX = 500


@dataclass(frozen=True, slots=True)
class InvitationRow:
    id: str
    email: str
    role: Role
    workspace: str | None
    created_by: str
    created_ms: int
    expires_ms: int


def invite(
    session: Session,
    email: str,
    organisation: str,
    role: Role,
    *,
    access: Access,
    actor: Actor,
    clock: Clock,
    ids: IdSource,
    workspace: str | None = None,
) -> Link:
    """To the organisation with this id, or only to one of its workspaces (name or id). Whether the address has an
    account already is not told. A later invitation of the same address to the same place replaces this one.
    """
    access.require(Permission.ORGANISATION_READ, organisation)
    home = None if workspace is None else find_workspace(session, workspace, within=organisation).id
    access.require(Permission.MEMBERS_MANAGE, organisation, home)
    if role is Role.OWNER and home is None:
        access.require(Permission.OWNERS_MANAGE, organisation)
    address = checked_email(email)
    place = find_organisation(session, organisation)
    user = user_by_email(session, address)
    if user is not None and _is_in(session, user.id, organisation, home):
        raise PlatformError(CONFLICT, f"{address} is a member already: change the role.", param="email")
    same = _open(organisation).where(OneTimeLink.email == address)
    same = same.where(OneTimeLink.workspace_id.is_(None) if home is None else OneTimeLink.workspace_id == home)
    _withdraw(session, list(session.scalars(same)))
    count = select(func.count()).select_from(_open(organisation).subquery())
    if session.scalars(count).one() >= OPEN_MAX:
        raise PlatformError(CONFLICT, f"An organisation has at most {OPEN_MAX} open invitations.")
    row = OneTimeLink(
        purpose=Purpose.INVITE.value, email=address, organisation_id=organisation, workspace_id=home, role=role.value
    )
    return make_link(session, row, actor=actor, clock=clock, ids=ids, place=place.name)


def list_invitations(session: Session, organisation: str, *, access: Access, clock: Clock) -> list[InvitationRow]:
    """Those that can still be used, of the organisation or of the workspaces whose members he manages; oldest first."""
    access.require(Permission.ORGANISATION_READ, organisation)
    shown = access.workspaces(Permission.MEMBERS_MANAGE, organisation)
    query = _open(organisation).where(OneTimeLink.expires_ms > clock.now_ms())
    if shown is not None:
        query = query.where(OneTimeLink.workspace_id.in_(shown))
    return [
        InvitationRow(
            row.id,
            row.email or "",
            Role(row.role or Role.VIEWER),
            row.workspace_id,
            row.created_by,
            row.created_ms,
            row.expires_ms,
        )
        for row in session.scalars(query.order_by(OneTimeLink.created_ms, OneTimeLink.id))
    ]


def withdraw_invitation(
    session: Session, invitation: str, organisation: str, *, access: Access, actor: Actor, clock: Clock
) -> None:
    """By its id. Raises PlatformError (NOT_FOUND), also for one that was used."""
    access.require(Permission.ORGANISATION_READ, organisation)
    row = session.scalars(_open(organisation).where(OneTimeLink.id == invitation)).one_or_none()
    if row is None or not access.may(Permission.MEMBERS_MANAGE, organisation, row.workspace_id):
        raise PlatformError(NOT_FOUND, f"There is no invitation {invitation!r}.")
    _withdraw(session, [row])
    target, before = Target("link", row.id), {"email": row.email, "role": row.role}
    now_ms = clock.now_ms()
    record(session, actor, "invite.withdraw", target, organisation=organisation, now_ms=now_ms, before=before)


def accept_invitation(session: Session, token: str, signed_in: SignedIn, origin: Origin, clock: Clock) -> Change:
    """By somebody who has an account and is logged in to it. A link alone never opens an account that exists: the one
    who invited may have seen it.
    """
    offer = offer_of(session, token, clock)
    if offer.purpose is not Purpose.INVITE or offer.email != signed_in.email:
        raise PlatformError(NOT_ALLOWED, "This invitation is for somebody else: log in as him.")
    use_link(session, offer.id, clock)
    return enter(session, offer, signed_in.user, signed_in.actor(origin), clock)


def enter(session: Session, offer: Offer, user_id: str, actor: Actor, clock: Clock) -> Change:
    """The role that a used link gives. A role that he got in the meantime stays."""
    if offer.organisation is None or offer.role is None:
        return Change(user_id, ())
    if _is_in(session, user_id, offer.organisation, offer.workspace):
        return Change(user_id, ())
    publish = put_member(session, user_id, offer.organisation, offer.workspace, offer.role, actor=actor, clock=clock)
    return Change(user_id, publish)


def first_login_link(session: Session, organisation: str, *, actor: Actor, clock: Clock, ids: IdSource) -> Link | None:
    """For the first administrator of an installation: he becomes operator, and owner of this organisation. None when
    there is an operator. Links made before end.
    """
    if has_operator(session):
        return None
    query = select(OneTimeLink).where(OneTimeLink.purpose == Purpose.FIRST_LOGIN.value, OneTimeLink.user_id.is_(None))
    _withdraw(session, list(session.scalars(query.where(OneTimeLink.used_ms.is_(None)))))
    row = OneTimeLink(purpose=Purpose.FIRST_LOGIN.value, organisation_id=organisation, role=Role.OWNER.value)
    return make_link(session, row, actor=actor, clock=clock, ids=ids)


def has_operator(session: Session) -> bool:
    """One who can log in."""
    query = select(User.id).where(User.is_operator, User.disabled_ms.is_(None), User.password_hash.is_not(None))
    return session.scalars(query.limit(1)).one_or_none() is not None


def password_link(
    session: Session, email_or_id: str, *, access: Access, actor: Actor, clock: Clock, ids: IdSource
) -> Link:
    """To choose a first password, or another one. Only for operators: whoever sees the link can become this user."""
    access.require_operator()
    return _password_link(session, find_user(session, email_or_id, within=None), actor, clock, ids)


def forgotten_password(session: Session, email: str, origin: Origin, *, clock: Clock, ids: IdSource) -> Link | None:
    """Asked for by anybody; only where the link can be mailed, never shown. None for an address without an account.
    The caller answers the same in both cases and mails afterwards. Raises PlatformError (TOO_MANY_ATTEMPTS).
    """
    actor = Actor("system", "forgotten password", "", origin.address, origin.request_id)
    claim_attempt(session, subjects_of(folded(email), origin.address, Counted.RESET), actor=actor, clock=clock)
    user = user_by_email(session, email)
    if user is None or user.disabled_ms is not None:
        return None
    return _password_link(session, user, actor, clock, ids)


def _password_link(session: Session, user: User, actor: Actor, clock: Clock, ids: IdSource) -> Link:
    if user.kind != PERSON:
        raise PlatformError(CONFLICT, "A service account cannot log in.")
    if user.disabled_ms is not None:
        raise PlatformError(CONFLICT, "This user is disabled: enable him first.")
    query = select(OneTimeLink).where(OneTimeLink.user_id == user.id, OneTimeLink.used_ms.is_(None))
    _withdraw(session, list(session.scalars(query)))
    purpose = Purpose.FIRST_LOGIN if user.password_hash is None else Purpose.RESET
    row = OneTimeLink(purpose=purpose.value, user_id=user.id, email=user.email)
    return make_link(session, row, actor=actor, clock=clock, ids=ids)


def _open(organisation: str) -> Select[OneTimeLink]:
    return select(OneTimeLink).where(
        OneTimeLink.organisation_id == organisation,
        OneTimeLink.purpose == Purpose.INVITE.value,
        OneTimeLink.used_ms.is_(None),
    )


def _is_in(session: Session, user_id: str, organisation: str, workspace: str | None) -> bool:
    if workspace is None:
        return session.get(Member, (user_id, organisation)) is not None
    return session.get(WorkspaceMember, (user_id, workspace)) is not None


def _withdraw(session: Session, rows: list[OneTimeLink]) -> None:
    session.execute(delete(OneTimeLink).where(OneTimeLink.id.in_([row.id for row in rows])))
