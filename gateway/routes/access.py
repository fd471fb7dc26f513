"""From the Authorization header to a Principal."""

from dataclasses import dataclass

from starlette.types import Scope

from core.errors import FORBIDDEN, UNAUTHORIZED, PlatformError
from gateway.middleware import header
from gateway.principal import Principal, PrincipalSource

KEY_CHARS_MAX = 256


@dataclass(frozen=True, slots=True)
class Caller:
    """`secret` is kept only to have the principal loaded again when admission calls it stale."""

    secret: str
    principal: Principal


async def authenticate(principals: PrincipalSource, scope: Scope, needs: str | None) -> Caller:
    """The caller of a request. Raises PlatformError: 401, or 403 for a key without the scope `needs`."""
    value = header(scope, b"authorization")
    if value is None:
        raise _unauthorized()
    scheme, _, rest = value.partition(b" ")
    secret = rest.strip().decode("latin-1")
    if scheme.lower() != b"bearer" or not secret or len(secret) > KEY_CHARS_MAX:
        raise _unauthorized()
    principal = await principals.by_key(secret)
    if needs is not None and needs not in principal.scopes:
        raise PlatformError(FORBIDDEN, f"This key lacks the scope {needs}.")
    return Caller(secret, principal)


def _unauthorized() -> PlatformError:
    return PlatformError(UNAUTHORIZED, "Unauthorized")
