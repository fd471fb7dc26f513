"""Where people come in: log-in, one-time links, another password.

Synchronous, for a thread. Passwords are checked between the units of work, never inside one.
"""

from sqlalchemy.orm import Session

from core.clock import Clock
from core.db import Database
from core.errors import CONFLICT, UNAUTHORIZED, PlatformError
from core.ids import IdSource
from gateway.accounts.generations import Change
from gateway.accounts.invitations import enter, has_operator
from gateway.accounts.links import Offer, Purpose, offer_of, unusable, use_link
from gateway.accounts.passwords import Passwords, checked_password
from gateway.accounts.people import PERSON, User
from gateway.accounts.sessions import LoggedIn, Origin, SignedIn, actor_of, open_session
from gateway.accounts.throttle import Subject, claim_attempt, forgive, subjects_of
from gateway.accounts.trail import Actor, Target, record
from gateway.accounts.users import create_user, end_sessions_and_links, folded, user_by_email

WRONG = "The e-mail address or the password is wrong."


class Door:
    def __init__(self, database: Database, passwords: Passwords, *, clock: Clock, ids: IdSource) -> None:
        self._database = database
        self._passwords = passwords
        self._clock = clock
        self._ids = ids

    def log_in(self, email: str, password: str, origin: Origin) -> LoggedIn:
        """Raises PlatformError: UNAUTHORIZED, the same and after the same work whether the address is unknown, the
        password wrong or the user disabled; TOO_MANY_ATTEMPTS.
        """
        address = folded(email)
        subjects = subjects_of(address, origin.address)
        kept = self._kept(address, subjects, origin)
        if not self._passwords.matches(kept, password) or kept is None:
            raise PlatformError(UNAUTHORIZED, WRONG)
        fresh = self._passwords.hash(password) if self._passwords.outdated(kept) else kept
        with self._database.unit_of_work() as session:
            user = user_by_email(session, address, lock=True)
            if user is None or user.password_hash != kept or user.disabled_ms is not None:
                raise PlatformError(UNAUTHORIZED, WRONG)
            user.password_hash = fresh
            forgive(session, subjects)
            return open_session(session, user, origin, clock=self._clock, ids=self._ids)

    def change_password(self, signed_in: SignedIn, old: str, new: str, origin: Origin) -> None:
        """His other sessions end, and so do links to another password. Raises PlatformError: UNAUTHORIZED for a wrong
        old one, VALIDATION, TOO_MANY_ATTEMPTS.
        """
        checked_password(new, email=signed_in.email)
        subjects = subjects_of(signed_in.email, origin.address)
        kept = self._kept(signed_in.email, subjects, origin)
        if not self._passwords.matches(kept, old):
            raise PlatformError(UNAUTHORIZED, "The old password is wrong.")
        fresh = self._passwords.hash(new)
        actor = signed_in.actor(origin)
        with self._database.unit_of_work() as session:
            user = user_by_email(session, signed_in.email, lock=True)
            if user is None or user.password_hash != kept or user.disabled_ms is not None:
                raise PlatformError(UNAUTHORIZED, "The old password is wrong.")
            user.password_hash = fresh
            forgive(session, subjects)
            end_sessions_and_links(session, user.id, keep=signed_in.id)
            self._record(session, actor, "user.change_password", user.id)

    def redeem(
        self, token: str, password: str, origin: Origin, *, name: str = "", email: str = ""
    ) -> tuple[LoggedIn, Change]:
        """Use a link: choose a password, and be logged in. `name` for a new user, `email` where the link names none.
        After the commit, the change is to be published. Raises PlatformError: NOT_FOUND, VALIDATION, or CONFLICT for
        an invitation of somebody who has an account (see `invitations.accept_invitation`).
        """
        with self._database.reading() as session:
            offer = offer_of(session, token, self._clock)  # before the work: guessing a link costs us nothing
        if offer.has_account:
            raise PlatformError(CONFLICT, "This address has an account: log in, and open the invitation again.")
        address = folded(offer.email or email)
        checked_password(password, email=address)
        fresh = self._passwords.hash(password)
        with self._database.unit_of_work() as session:
            use_link(session, offer.id, self._clock)
            user, actor = self._entrant(session, offer, address, name, fresh, origin)
            change = enter(session, offer, user.id, actor, self._clock)
            return open_session(session, user, origin, clock=self._clock, ids=self._ids), change

    def _kept(self, address: str, subjects: tuple[Subject, ...], origin: Origin) -> str | None:
        """The hash to compare with, after the attempt was counted; known or not, it is the same work."""
        with self._database.unit_of_work() as session:
            claim_attempt(session, subjects, actor=_nobody("log-in", origin), clock=self._clock)
            user = user_by_email(session, address)
            return None if user is None or user.kind != PERSON else user.password_hash

    def _entrant(
        self, session: Session, offer: Offer, address: str, name: str, fresh: str, origin: Origin
    ) -> tuple[User, Actor]:
        """Who uses the link, with the password that he chose, and as the audit log names him."""
        if offer.user is not None:
            user = session.get(User, offer.user, with_for_update=True)
            if user is None or user.disabled_ms is not None:
                raise unusable()
            user.password_hash = fresh
            actor = actor_of(user.id, address, origin)
            end_sessions_and_links(session, user.id)
            self._record(session, actor, "user.set_password", user.id)
            return user, actor
        first = offer.purpose is Purpose.FIRST_LOGIN
        if first and has_operator(session):
            raise PlatformError(CONFLICT, "This installation has an administrator: ask for an invitation.")
        by = _nobody(f"link {offer.id}", origin)
        user = create_user(
            session,
            address,
            name or address.partition("@")[0],
            actor=by,
            clock=self._clock,
            ids=self._ids,
            is_operator=first,
            password_hash=fresh,
        )
        return user, actor_of(user.id, address, origin)

    def _record(self, session: Session, actor: Actor, action: str, user_id: str) -> None:
        record(session, actor, action, Target("user", user_id), organisation="", now_ms=self._clock.now_ms())


def _nobody(what: str, origin: Origin) -> Actor:
    return Actor("system", what, "", origin.address, origin.request_id)
