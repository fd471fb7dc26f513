"""From the Authorization header to a Principal."""

from dataclasses import dataclass

from starlette.types import Scope

from core.errors import FORBIDDEN, UNAUTHORIZED, UNAVAILABLE, PlatformError
from core.queue.base import QueueKeeper
from gateway.desk import QUEUE_AWAY
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


async def authenticate_now(principals: PrincipalSource, keeper: QueueKeeper, scope: Scope, needs: str | None) -> Caller:
    """For routes without an admission, which would refuse a stale principal: ask whether it still is what it was."""
    caller = await authenticate(principals, scope, needs)
    organisation = caller.principal.organisation
    try:
        current = (await keeper.generations([organisation])).get(organisation, 0)
    except QUEUE_AWAY as error:
        raise PlatformError(
            UNAVAILABLE, "The platform cannot check this key at the moment.", retry_after_s=1
        ) from error
    if current <= caller.principal.generation:
        return caller
    principals.forget(caller.secret)
    return await authenticate(principals, scope, needs)


def _unauthorized() -> PlatformError:
    return PlatformError(UNAUTHORIZED, "Unauthorized")
