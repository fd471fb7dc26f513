"""Names that people give to things."""

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.errors import CONFLICT, VALIDATION, PlatformError
from gateway.accounts.models import NAME_LENGTH_MAX


def checked_name(name: str) -> str:
    """The name again, or PlatformError (VALIDATION)."""
    if not name.strip() or len(name) > NAME_LENGTH_MAX or not name.isprintable():
        raise PlatformError(VALIDATION, f"A name has 1 to {NAME_LENGTH_MAX} printable characters.", param="name")
    return name


def flush_named(session: Session, name: str) -> None:
    """Write what was added or renamed; the unique constraint finds a name that is taken: PlatformError (CONFLICT)."""
    try:
        session.flush()
    except IntegrityError as error:
        raise PlatformError(CONFLICT, f"The name {name!r} is taken.", param="name") from error
