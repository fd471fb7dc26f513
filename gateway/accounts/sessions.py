"""Console sessions: kept on the server, so that each can be ended. The cookie carries 256 random bits; at rest there
is only their SHA-256.
"""

import hashlib
import hmac
from dataclasses import dataclass

from pydantic import SecretStr
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from core.clock import Clock
from core.ids import IdSource
from gateway.accounts.access import Access, access_of
from gateway.accounts.models import NAME_LENGTH_MAX
from gateway.accounts.people import ConsoleSession, User
from gateway.accounts.trail import ADDRESS_LENGTH_MAX, Actor, Target, record

TOKEN_BYTES = 32
TOKEN_LENGTH = 2 * TOKEN_BYTES
IDLE_MS_MAX = 12 * 3_600_000
AGE_MS_MAX = 7 * 24 * 3_600_000
SEEN_STEP_MS = 60_000
SESSIONS_MAX = 50  # of one user; the oldest ends when another begins
USER_AGENT_LENGTH_MAX = 200
PRUNED_AT_ONCE = 100
CSRF_LABEL = b"tramontane csrf"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from."""

    address: str = ""
    user_agent: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """`token` goes into the cookie (Secure, HttpOnly, SameSite=Lax, path /console) and nowhere else."""

    token: SecretStr
    user: str
    expires_ms: int


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who a session's token stands for. `id` may be shown: it is a digest. `touch_due`: call `touch_session`."""

    id: str
    user: str
    email: str
    name: str
    access: Access
    created_ms: int
    expires_ms: int
    touch_due: bool

    def actor(self, origin: Origin) -> Actor:
        """As the audit log names him."""
        return actor_of(self.user, self.email, origin)


@dataclass(frozen=True, slots=True)
class SessionRow:
    id: str
    created_ms: int
    seen_ms: int
    address: str
    user_agent: str


def actor_of(user_id: str, email: str, origin: Origin) -> Actor:
    return Actor("user", user_id, email[:NAME_LENGTH_MAX], origin.address, origin.request_id)


def open_session(session: Session, user: User, origin: Origin, *, clock: Clock, ids: IdSource) -> LoggedIn:
    """For somebody who has just shown who he is: always a new token."""
    now_ms = clock.now_ms()
    token = ids.token(TOKEN_BYTES)
    _prune(session, user.id, now_ms)
    user.last_login_ms = now_ms
    session.add(
        ConsoleSession(
            digest=digest_of(token),
            user_id=user.id,
            created_ms=now_ms,
            seen_ms=now_ms,
            expires_ms=now_ms + AGE_MS_MAX,
            address=origin.address[:ADDRESS_LENGTH_MAX],
            user_agent=origin.user_agent[:USER_AGENT_LENGTH_MAX],
        )
    )
    session.flush()
    actor = actor_of(user.id, user.email or "", origin)
    record(session, actor, "user.log_in", Target("user", user.id), organisation="", now_ms=now_ms)
    return LoggedIn(SecretStr(token), user.id, now_ms + AGE_MS_MAX)


def session_of(session: Session, token: str, clock: Clock) -> SignedIn | None:
    """Only reads. None: never was, ended, too old, idle for too long, or of a disabled user."""
    if len(token) != TOKEN_LENGTH or not token.isascii():
        return None
    now_ms = clock.now_ms()
    found = session.execute(
        select(ConsoleSession, User)
        .join(User, User.id == ConsoleSession.user_id)
        .where(ConsoleSession.digest == digest_of(token))
    ).one_or_none()
    if found is None:
        return None
    kept, user = found
    if kept.expires_ms <= now_ms or kept.seen_ms + IDLE_MS_MAX <= now_ms or user.disabled_ms is not None:
        return None
    return SignedIn(
        id=kept.digest,
        user=user.id,
        email=user.email or "",
        name=user.name,
        access=access_of(session, user.id),
        created_ms=kept.created_ms,
        expires_ms=min(kept.expires_ms, kept.seen_ms + IDLE_MS_MAX),
        touch_due=kept.seen_ms + SEEN_STEP_MS <= now_ms,
    )


def touch_session(session: Session, session_id: str, clock: Clock) -> None:
    """It is in use: what is idle ends. Once a minute is enough, so that a page is not a write."""
    now_ms = clock.now_ms()
    session.execute(
        update(ConsoleSession)
        .where(ConsoleSession.digest == session_id, ConsoleSession.seen_ms < now_ms)
        .values(seen_ms=now_ms)
    )


def list_sessions(session: Session, user_id: str, clock: Clock) -> list[SessionRow]:
    """A user's own, youngest first."""
    now_ms = clock.now_ms()
    query = (
        select(ConsoleSession)
        .where(
            ConsoleSession.user_id == user_id,
            ConsoleSession.expires_ms > now_ms,
            ConsoleSession.seen_ms > now_ms - IDLE_MS_MAX,
        )
        .order_by(ConsoleSession.created_ms.desc(), ConsoleSession.digest)
    )
    return [
        SessionRow(kept.digest, kept.created_ms, kept.seen_ms, kept.address, kept.user_agent)
        for kept in session.scalars(query)
    ]


def log_out(session: Session, signed_in: SignedIn, origin: Origin, clock: Clock) -> None:
    """The cookie is worth nothing from now on."""
    session.execute(delete(ConsoleSession).where(ConsoleSession.digest == signed_in.id))
    target = Target("user", signed_in.user)
    record(session, signed_in.actor(origin), "user.log_out", target, organisation="", now_ms=clock.now_ms())


def end_sessions(
    session: Session, user_id: str, *, actor: Actor, clock: Clock, only: str | None = None, keep: str | None = None
) -> int:
    """How many of the user's sessions were ended: all, the one with the id `only`, or all but `keep`."""
    query = select(ConsoleSession.digest).where(ConsoleSession.user_id == user_id)
    query = query if only is None else query.where(ConsoleSession.digest == only)
    query = query if keep is None else query.where(ConsoleSession.digest != keep)
    ended = session.scalars(query).all()
    if ended:
        session.execute(delete(ConsoleSession).where(ConsoleSession.digest.in_(ended)))
        target, after = Target("user", user_id), {"ended": len(ended)}
        record(session, actor, "user.end_sessions", target, organisation="", now_ms=clock.now_ms(), after=after)
    return len(ended)


def csrf_token(token: str) -> str:
    """For the forms of a session: whoever knows it has read one of its pages. Nothing is kept."""
    return hmac.digest(token.encode("utf-8", "surrogatepass"), CSRF_LABEL, "sha256").hex()


def check_csrf(token: str, given: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(csrf_token(token).encode(), given.encode("utf-8", "surrogatepass"))


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _prune(session: Session, user_id: str, now_ms: int) -> None:
    """Some that are too old, and of this user's all beyond the bound."""
    old = select(ConsoleSession.digest).where(ConsoleSession.expires_ms <= now_ms).limit(PRUNED_AT_ONCE)
    own = select(ConsoleSession.digest).where(ConsoleSession.user_id == user_id)
    own = own.order_by(ConsoleSession.created_ms.desc(), ConsoleSession.digest).offset(SESSIONS_MAX - 1)
    gone = {
        *session.scalars(old.with_for_update(skip_locked=True)),
        *session.scalars(own.with_for_update(skip_locked=True)),
    }
    if gone:
        session.execute(delete(ConsoleSession).where(ConsoleSession.digest.in_(gone)))
