"""What a key may do. A key that administers cannot run inference, so that one that leaks does only one kind of harm."""

from collections.abc import Collection

from core.errors import NOT_ALLOWED, VALIDATION, PlatformError

INFERENCE = "inference"
USAGE_READ = "usage:read"
ADMIN_READ = "admin:read"
ADMIN_WRITE = "admin:write"
OPERATOR = "operator"

ADMINISTRATION = frozenset({ADMIN_READ, ADMIN_WRITE, OPERATOR})
SCOPES = frozenset({INFERENCE, USAGE_READ}) | ADMINISTRATION
DEFAULT_SCOPES = (INFERENCE, USAGE_READ)

# By what is needed: the scopes that suffice.
SUFFICES = {
    INFERENCE: frozenset({INFERENCE}),
    USAGE_READ: frozenset({USAGE_READ}) | ADMINISTRATION,
    ADMIN_READ: ADMINISTRATION,
    ADMIN_WRITE: frozenset({ADMIN_WRITE, OPERATOR}),
    OPERATOR: frozenset({OPERATOR}),
}


def checked_scopes(scopes: Collection[str], *, within: str | None) -> list[str]:
    """Sorted. Raises PlatformError: VALIDATION, or NOT_ALLOWED for a scope that only the operator gives."""
    wanted = set(scopes)
    unknown = sorted(wanted - SCOPES)
    if unknown or not wanted:
        known = ", ".join(sorted(SCOPES))
        message = f"There is no scope {unknown[0]!r}; a key has some of {known}." if unknown else "A key has a scope."
        raise PlatformError(VALIDATION, message, param="scopes")
    if INFERENCE in wanted and wanted & ADMINISTRATION:
        raise PlatformError(VALIDATION, "A key that administers cannot run inference: make two.", param="scopes")
    if OPERATOR in wanted and within is not None:
        raise PlatformError(NOT_ALLOWED, "Only the operator makes keys with the scope operator.", param="scopes")
    return sorted(wanted)
