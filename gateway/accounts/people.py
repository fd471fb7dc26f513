"""Tables of people: users, their roles, console sessions, counted log-ins, links that work once.

Of every token only the SHA-256 is kept: they have 256 random bits, so that there is nothing to guess.
"""

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from core.db import Base
from gateway.accounts.models import ID_LENGTH, NAME_LENGTH_MAX

EMAIL_LENGTH_MAX = 254
DIGEST_LENGTH = 64
PERSON = "person"
SERVICE = "service"


class User(Base):
    """A person, or a service account, which owns keys but cannot log in and has no `email`. `password_hash` None:
    none was chosen yet. An operator may do everything in every organisation.
    """

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    email: Mapped[str | None] = mapped_column(String(EMAIL_LENGTH_MAX), unique=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX))
    password_hash: Mapped[str | None] = mapped_column(String(256))
    is_operator: Mapped[bool]
    disabled_ms: Mapped[int | None]
    created_ms: Mapped[int]
    last_login_ms: Mapped[int | None]


class Member(Base):
    """`role` is a roles.Role."""

    __tablename__ = "members"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"), primary_key=True, index=True)
    role: Mapped[str] = mapped_column(String(16))
    created_ms: Mapped[int]


class WorkspaceMember(Base):
    """Adds to what the role in the organisation gives, if there is one; counts in this workspace only."""

    __tablename__ = "workspace_members"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True, index=True)
    role: Mapped[str] = mapped_column(String(16))
    created_ms: Mapped[int]


class ConsoleSession(Base):
    """`expires_ms` whatever happens; earlier if it is idle for long after `seen_ms`."""

    __tablename__ = "console_sessions"

    digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    created_ms: Mapped[int]
    seen_ms: Mapped[int]
    expires_ms: Mapped[int] = mapped_column(index=True)
    address: Mapped[str] = mapped_column(String(64))
    user_agent: Mapped[str] = mapped_column(String(200))


class Attempts(Base):
    """Log-ins for one e-mail address, or from one network address, since the last that succeeded. `digest` of which
    one: what people type into the wrong field is not kept.
    """

    __tablename__ = "login_attempts"

    digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH), primary_key=True)
    count: Mapped[int]
    last_ms: Mapped[int] = mapped_column(index=True)


class OneTimeLink(Base):
    """`purpose` is a links.Purpose. `user_id` None: whoever uses it becomes a new user, of `email` if that is set."""

    __tablename__ = "one_time_links"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH), unique=True)
    purpose: Mapped[str] = mapped_column(String(16))
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id"), index=True)
    email: Mapped[str | None] = mapped_column(String(EMAIL_LENGTH_MAX))
    organisation_id: Mapped[str | None] = mapped_column(ForeignKey("organisations.id"), index=True)
    workspace_id: Mapped[str | None] = mapped_column(ForeignKey("workspaces.id"))
    role: Mapped[str | None] = mapped_column(String(16))
    created_by: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX))
    created_ms: Mapped[int]
    expires_ms: Mapped[int] = mapped_column(index=True)
    used_ms: Mapped[int | None]
