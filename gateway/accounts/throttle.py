"""Log-ins are counted before the password is looked at, so that a hundred at once are no way around the count.

Per e-mail address, known or not, and per network address (of IPv6 the /64, which one customer of a provider has).
The first few are free; then each must wait twice as long as the one before, 15 minutes at most. What was not tried
for a day is forgotten. A log-in that succeeds clears its e-mail address, and takes itself off the network address.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address, ip_address, ip_network

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.clock import Clock
from core.db import insert_new
from core.errors import TOO_MANY_ATTEMPTS, PlatformError
from gateway.accounts.people import Attempts
from gateway.accounts.trail import Actor, Target, record

WAIT_MS_MIN = 1_000
WAIT_MS_MAX = 15 * 60_000
FORGOTTEN_MS = 24 * 3_600_000
ROWS_MAX = 100_000
PRUNED_AT_ONCE = 100
DOUBLINGS_MAX = 20  # far beyond WAIT_MS_MAX
MS_PER_S = 1_000


class Counted(Enum):
    """What is counted, and how many of it are free."""

    EMAIL = ("email", 5)
    ADDRESS = ("address", 20)
    RESET = ("reset", 3)

    @property
    def free(self) -> int:
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Subject:
    counted: Counted
    value: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.counted.value[0]}:{self.value}".encode("utf-8", "surrogatepass")).hexdigest()


def subjects_of(email: str, address: str, by_email: Counted = Counted.EMAIL) -> tuple[Subject, ...]:
    """Always in this order, in which their rows are locked. An unknown address is not counted."""
    counted = (Subject(by_email, email),)
    return (*counted, Subject(Counted.ADDRESS, _network(address))) if address else counted


def claim_attempt(session: Session, subjects: Sequence[Subject], *, actor: Actor, clock: Clock) -> None:
    """Count one more of each, or raise PlatformError (TOO_MANY_ATTEMPTS) and count nothing. Commit before the password
    is checked. The first wait of a subject is recorded in the audit log.
    """
    now_ms = clock.now_ms()
    rows = [(subject, _locked(session, subject, now_ms)) for subject in subjects]
    wait_ms = max(row.last_ms + wait_after_ms(subject.counted, row.count) - now_ms for subject, row in rows)
    if wait_ms > 0:
        seconds = -(-wait_ms // MS_PER_S)
        raise PlatformError(TOO_MANY_ATTEMPTS, f"Too many attempts: wait {seconds} s.", retry_after_s=seconds)
    for subject, row in rows:
        row.count += 1
        row.last_ms = now_ms
        if row.count == subject.counted.free + 1:
            target = Target(f"attempts_{subject.counted.value[0]}", subject.digest)
            record(session, actor, "login.throttle", target, organisation="", now_ms=now_ms)
    session.flush()
    _prune(session, now_ms)  # last, for it waits for no lock


def forgive(session: Session, subjects: Sequence[Subject]) -> None:
    """After a log-in that succeeded."""
    for subject in subjects:
        row = session.get(Attempts, subject.digest, with_for_update=True)
        if row is not None:
            row.count = max(0, row.count - 1) if subject.counted is Counted.ADDRESS else 0
    session.flush()


def wait_after_ms(counted: Counted, count: int) -> int:
    """What must pass between the last of so many attempts and the next."""
    beyond = count - counted.free
    return 0 if beyond <= 0 else min(WAIT_MS_MIN << min(beyond - 1, DOUBLINGS_MAX), WAIT_MS_MAX)


def _locked(session: Session, subject: Subject, now_ms: int) -> Attempts:
    query = select(Attempts).where(Attempts.digest == subject.digest).with_for_update()
    query = query.execution_options(populate_existing=True)
    row = None
    while row is None:  # again only if it was pruned in between; then it is new, and nobody prunes it
        insert_new(session, Attempts, [{"digest": subject.digest, "count": 0, "last_ms": now_ms}], ["digest"])
        row = session.scalars(query).one_or_none()
    if row.last_ms <= now_ms - FORGOTTEN_MS:
        row.count = 0
    return row


def _prune(session: Session, now_ms: int) -> None:
    """A few of the forgotten ones, and of the oldest beyond ROWS_MAX; never one that somebody else is counting."""
    old = select(Attempts.digest).order_by(Attempts.last_ms).limit(PRUNED_AT_ONCE).with_for_update(skip_locked=True)
    forgotten = session.scalars(old.where(Attempts.last_ms <= now_ms - FORGOTTEN_MS)).all()
    newest = select(Attempts.last_ms).order_by(Attempts.last_ms.desc()).offset(ROWS_MAX).limit(1)
    edge_ms = session.scalars(newest).one_or_none()
    beyond = () if edge_ms is None else session.scalars(old.where(Attempts.last_ms <= edge_ms)).all()
    if forgotten or beyond:
        session.execute(delete(Attempts).where(Attempts.digest.in_({*forgotten, *beyond})))


def _network(address: str) -> str:
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return str(ip_network((found, 64), strict=False))
    return str(found.ipv4_mapped or found) if isinstance(found, IPv6Address) else str(found)
